"""Columns by name, of arrays or of an Arrow table: what is in them is checked, and what is put beside them alike."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from embstore.codec import Vectors
from embstore.errors import InvalidInputError, InvalidTypeError


def texts_of(batch: Any, name: str) -> list[str]:
    """Give the texts of a column.

    Raises
    ------
    InvalidInputError, InvalidTypeError
        There is no such column, or a row has none.
    """
    texts = _column(batch, name, "text_column")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            if text is None or text != text:  # NaN: what pandas has for null
                raise InvalidInputError(f"column {name!r} is null in row {row} of a batch; leave out such rows first")
            raise InvalidTypeError(f"column {name!r} has {type(text).__name__} in row {row} of a batch: {text!r:.80}")
    return texts


def ids_of(batch: Any, name: str) -> list[str]:
    """Give the ids of a column, as texts; it raises as `texts_of`."""
    ids = _column(batch, name, "id_column")
    for row, doc_id in enumerate(ids):
        if type(doc_id) not in (str, int):
            raise InvalidTypeError(
                f"column {name!r} has {type(doc_id).__name__} in row {row} of a batch, neither a text nor a whole "
                f"number: {doc_id!r:.80}"
            )
    return [str(doc_id) for doc_id in ids]


def _column(batch: Any, name: str, argument: str) -> list[Any]:
    names = names_of(batch)
    if name not in names:
        raise InvalidInputError(f"no column {name!r} among {', '.join(map(repr, names))}; say which by {argument}=")
    values = batch[name]
    if _is_arrow(batch):
        return list(values.to_pylist())
    return list(values.tolist() if hasattr(values, "tolist") else values)


def names_of(batch: Any) -> list[str]:
    """Give the names of the columns.

    Raises
    ------
    InvalidTypeError
        It is no batch that is known here.
    """
    if _is_arrow(batch):
        return list(batch.column_names)
    if isinstance(batch, Mapping):
        return list(batch)
    raise InvalidTypeError(
        f"a batch is {type(batch).__name__}, not columns by name and no pyarrow.Table; "
        f"give batch_format='numpy' or 'pyarrow'"
    )


def _is_arrow(batch: Any) -> bool:
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(batch, pyarrow.Table)


def only(batch: Any, name: str) -> Any:
    """Give a batch with one of its columns alone."""
    return batch.select([name]) if _is_arrow(batch) else {name: batch[name]}


def with_vectors(batch: Any, name: str, vectors: Vectors) -> Any:
    """Give a batch with one more column: an ndarray of shape (n, dim), or lists of dim values in Arrow."""
    if not _is_arrow(batch):
        return {**batch, name: vectors}
    import pyarrow

    values = pyarrow.array(vectors.reshape(-1), pyarrow.float32())
    return batch.append_column(name, pyarrow.FixedSizeListArray.from_arrays(values, vectors.shape[1]))
