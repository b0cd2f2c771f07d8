"""Telling whether anything was committed to a file, by what SQLite itself tells it by."""

from __future__ import annotations

import os

from embstore.stores.btrees.connection import FileConnection
from embstore.stores.btrees.descriptors import descriptors, is_on
from embstore.stores.btrees.pager import JOURNAL_MODE, ROLLBACK_AND_NOTHING_RESERVED, ROLLBACK_JOURNALS

# Of the header, 1.3: by which journal the file is written, the count of changes, the pages that there are and are free.
_AT, _BYTES = 18, 22

State = bytes
"""Of a file: another one after each commit."""


def state(connection: FileConnection) -> State | None:
    """Tell the state of the file that a connection has open, in a microsecond and without a lock.

    SQLite believes the pages that it has in memory for as long as the same bytes are what they were: each commit counts
    up. While one is under way they may be those of after it already; then SQLite lets nobody read.

    Returns
    -------
    bytes or None
        None where what the connection reads is not what was committed, or nothing is known of the file. It is that of
        another file where somebody closed the descriptor, and its number was given anew: `is_in` sees that.
    """
    if connection.descriptor is None or connection.is_writing:
        return None
    try:
        told = os.pread(connection.descriptor, _BYTES, _AT)
    except OSError:  # it was closed, or opened to be written only
        return None
    return told if told.startswith(ROLLBACK_AND_NOTHING_RESERVED) else None


def is_in(connection: FileConnection, told: State) -> bool:
    """Tell whether the file, and no other, is in a state that `state` told."""
    if connection.file is None or connection.descriptor is None:
        return False
    return state(connection) == told and is_on(connection.descriptor, connection.file)


def look_for_descriptor(connection: FileConnection) -> None:
    """Find, once, what the state can be read by; there is nothing where the file has a write-ahead log."""
    if connection.was_looked_for:
        return
    connection.was_looked_for = True
    (journal_mode,) = connection.execute(JOURNAL_MODE).fetchone()
    if connection.file is None or journal_mode not in ROLLBACK_JOURNALS:
        return
    for descriptor in descriptors(connection.file):
        connection.descriptor = descriptor
        if state(connection) is not None:  # it was not opened to be written only
            return
    connection.descriptor = None
