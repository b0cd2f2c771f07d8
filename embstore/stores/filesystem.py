"""Where a file lies: file systems whose locks cannot be trusted."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_NETWORK_TYPES = {
    *("9p", "acfs", "afs", "afpfs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre"),
    *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "smb", "smb2", "smb3", "smbfs", "vboxsf", "webdav"),
}
_NETWORK_FUSE = re.compile(
    r"fuse\.(sshfs|s3fs|gcsfuse|rclone|glusterfs|ceph.*|juicefs|davfs.*|blobfuse.*|mount-s3|goofys)"
)
_OCTAL = re.compile(r"\\([0-7]{3})")
_DRIVE_REMOTE = 4


def network_filesystem(path: Path) -> str | None:
    """Name the network file system that a path lies on.

    Parameters
    ----------
    path : Path
        Absolute; it need not exist.

    Returns
    -------
    str or None
        The type ("nfs4", "cifs", ...), None where the file system is local or cannot be told.
    """
    if sys.platform == "win32":
        return _windows_share(path)
    kind = mounted_type(path)
    return kind if kind in _NETWORK_TYPES or _NETWORK_FUSE.fullmatch(kind) else None


def mounted_type(path: Path) -> str:
    """Name the type of the innermost mount that holds a path, by Linux's /proc/self/mountinfo; "" elsewhere.

    Source: proc_pid_mountinfo(5): the mount point is field 5, the type the first one after " - ".
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    parents = {str(path), *map(str, path.parents)}
    best = ("", "")
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), mount.split(" ")[4])
        if point in parents and len(point) >= len(best[0]):
            best = (point, source.split(" ")[0])
    return best[1]


def _windows_share(path: Path) -> str | None:
    if path.drive.startswith("\\\\"):
        return "a network share"
    if sys.platform == "win32" and path.drive:
        import ctypes

        if ctypes.windll.kernel32.GetDriveTypeW(path.drive + os.sep) == _DRIVE_REMOTE:
            return "a network drive"
    return None
