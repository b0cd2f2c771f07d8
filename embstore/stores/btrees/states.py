"""Telling whether anything was committed to a file, by what SQLite itself tells it by."""

from __future__ import annotations

import os

from embstore.stores.btrees.connection import FileConnection
from embstore.stores.btrees.descriptors import FileId, descriptors, is_on
from embstore.stores.btrees.pager import JOURNAL_MODE, ROLLBACK_AND_NOTHING_RESERVED, ROLLBACK_JOURNALS

# Of the header, 1.3: by which journal the file is written, the count of changes, the pages that there are and are free.
_AT, _BYTES = 18, 22

# A connection that is asked once pays nothing for being asked again.
_LOOK_AT_FETCH = 2

State = tuple[FileId, bytes]
"""Of a file: another one after each commit."""


def state(connection: FileConnection) -> State | None:
    """Tell the state of the file that a connection has open, in 2 us and without a lock.

    SQLite believes the pages that it has in memory for as long as the same bytes are what they were: each commit counts
    up. The count can be that of a commit that is under way, and may come to nothing; nobody can read the file at that
    time, so that what was read is of the state that is told while its lock is still held.

    Returns
    -------
    tuple or None
        None where a transaction goes on, which may have one state for itself, or nothing is known of the file.
    """
    file, descriptor = connection.file, connection.descriptor
    if file is None or descriptor is None or connection.in_transaction:
        return None
    try:
        told = os.pread(descriptor, _BYTES, _AT)
    except OSError:  # somebody closed it, or it was opened to be written only
        return None
    is_known = told.startswith(ROLLBACK_AND_NOTHING_RESERVED) and is_on(descriptor, file)
    return (file, told) if is_known else None


def state_of_fetch(connection: FileConnection) -> State | None:
    """Do what `state` does in the middle of a statement; where need be, look for a descriptor to tell it by first."""
    told = state(connection)
    if told is None and not connection.in_transaction:
        if connection.descriptor is not None:  # it is no more what it was
            connection.descriptor, connection.n_fetches = None, 0
        connection.n_fetches += 1
        if connection.n_fetches == _LOOK_AT_FETCH:
            _look_for_descriptor(connection)
            told = state(connection)
    return told


def _look_for_descriptor(connection: FileConnection) -> None:
    """Find one that the state can be told by; there is none where the file has a write-ahead log."""
    (journal_mode,) = connection.execute(JOURNAL_MODE).fetchone()
    if connection.file is None or journal_mode not in ROLLBACK_JOURNALS:
        return
    for descriptor in descriptors(connection.file):
        connection.descriptor = descriptor
        if state(connection) is not None:  # it was not opened to be written only
            return
    connection.descriptor = None
