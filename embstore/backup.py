"""BackedUp: a copy of a cache file while it is used."""

from __future__ import annotations

from pathlib import Path

from embstore.progress import progress_bar
from embstore.stores.base import Problem, Store


class BackedUp:
    """What has a store that can be copied."""

    _store: Store

    def backup(
        self, path: str | Path, *, allow_network_filesystem: bool = False, progress: bool | None = None
    ) -> list[Problem]:
        """Copy the file as it is at one moment, and check the copy; other threads and processes may use it meanwhile.

        The copy holds everything that was stored when the call began. Writers wait for a few megabytes of it at most,
        unless they do not let the copying come to an end: after two attempts that were overtaken by writes, commits
        wait until it is done, which is about a second for each gigabyte. The copy gets its name when it is whole and
        on the disk; a kill leaves none, but for a file ``NAME.*.part`` to be deleted.

        Parameters
        ----------
        path : str or Path
            Where nothing is, in a folder that exists. Created with mode 0600.
        allow_network_filesystem : bool
            Also on NFS, SMB and the like.
        progress : bool, optional
            Show a progress bar; by default where stderr is a terminal.

        Returns
        -------
        list of Problem
            What `verify` finds in the copy: [] where it is sound. Damaged rows are copied as they are.

        Raises
        ------
        StorePathError
            Something is there already, the cache itself for one, or nothing can be put there.
        UnsafeStoreError
            It is on a network file system.
        StoreFullError, StoreBusyError, DamagedStoreError
            There is no room for it; the cache was locked for longer than `timeout_s`, or cannot be read as a whole.
            In each case nothing is left at `path`.
        """
        with progress_bar(None, "copying", progress, unit="page") as bar:

            def show(n_copied: int, n_pages: int) -> None:
                bar.total = n_pages
                bar.update(n_copied - bar.n)  # less than before where writes made it begin anew

            return self._store.backup(path, allow_network_filesystem=allow_network_filesystem, on_progress=show)
