"""Reading rows of the table vectors off the pages of the file: many together, quicker than SQLite gives them."""

from __future__ import annotations

from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from embstore.checksums import Words
from embstore.codec import StoredValues
from embstore.stores.base import StoredModel
from embstore.stores.btrees.pager import open_pager
from embstore.stores.tables import appended_leaves, other_leaves
from embstore.stores.tables.vector_leaves import Leaves, Wanted

# Fewer rows, or rows of which there are few in a page, are quicker asked of SQLite.
LEAST_ROWS = 1000
MOST_IDS_A_ROW = 4


def read(
    connection: Connection,
    vector_ids: npt.NDArray[np.int64],
    model: StoredModel,
    targets: npt.NDArray[np.intp] | None,
) -> tuple[Words, StoredValues] | None:
    """Read rows where all are there and as they are in a sound file.

    Parameters
    ----------
    vector_ids, model, targets
        As of `vector_rows.read`.

    Returns
    -------
    content_sums, values
        As of `vector_rows.read_together`; None in place of both where SQLite has to be asked.
    """
    if len(vector_ids) < LEAST_ROWS or int(vector_ids[-1]) - int(vector_ids[0]) >= MOST_IDS_A_ROW * len(vector_ids):
        return None
    pager = open_pager(connection)
    if pager is None:
        return None
    try:
        leaves, wanted = Leaves.of(pager, vector_ids), Wanted(vector_ids, model, targets)
        other_leaves.read(pager, appended_leaves.read(pager, leaves, wanted), wanted)
        pager.check_descriptor()
    except (OSError, ValueError, IndexError):
        return None
    return wanted.sums, wanted.values
