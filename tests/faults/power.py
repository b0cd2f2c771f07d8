"""A disk whose power can be cut: an ext4 file system in a file, shut down by its own ioctl (Linux, as root)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), of fs/ext4/ext4.h
LOGFLUSH, NOLOGFLUSH = 1, 2  # EXT4_GOING_FLAGS_*: whether what is in its journal's memory still gets to the disk

IMAGE_BYTES = 64 * 2**20
PROGRAMS = ("mkfs.ext4", "mount", "umount")


class Disk:
    """A mounted file system of its own. `close` leaves no mount and no loop device, whatever happened.

    Parameters
    ----------
    folder : Path
        Where the file that it is in and its mount point go.
    """

    def __init__(self, folder: Path) -> None:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("only root on Linux may mount a file system and shut it down")
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")
        self._image, self.root = folder / "disk.img", folder / "disk"
        self.root.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True, timeout=60)
        mounted = self._mount()
        if mounted.returncode:
            pytest.skip(f"no loop device can be mounted here: {mounted.stderr.strip()}")

    def _mount(self) -> subprocess.CompletedProcess[str]:
        command = ["mount", "-o", "loop", self._image, self.root]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def cut_power(self, flag: int) -> None:
        """Let nothing more get to the disk; every call that would write fails from now on."""
        import fcntl

        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, flag.to_bytes(4, sys.byteorder))
        except OSError as error:
            pytest.skip(f"this kernel does not shut ext4 down: {error}")
        finally:
            os.close(descriptor)

    def start_again(self) -> None:
        """Mount what is on the disk."""
        subprocess.run(["umount", self.root], check=True, timeout=60)
        mounted = self._mount()
        assert mounted.returncode == 0, mounted.stderr

    def close(self) -> None:
        """Unmount it, which gives the loop device back."""
        if os.path.ismount(self.root):
            subprocess.run(["umount", "--lazy", self.root], check=True, timeout=60)
        self._image.unlink()
