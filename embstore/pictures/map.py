"""The map of a library: every document a point, near to those that mean the same, on a page to look around in."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embstore.errors import MissingExtraError
from embstore.inputs import check_count
from embstore.pictures.columns import columns_of
from embstore.pictures.page import as_float32, check_target, packed, page, static, write_page
from embstore.pictures.points import Documents, read_documents
from embstore.pictures.projection import Method, Projected, check_method, import_umap, project
from embstore.stores.locations import name_of


@dataclass(frozen=True)
class DrawnMap:
    """A map that was drawn.

    Attributes
    ----------
    path : str
    size_bytes : int
    model_name : str
    n_documents : int
        Points on it.
    n_without_vector : int
        Documents that are left out, as no sound vector of them is stored.
    n_without_text : int
        Documents that are shown by their id alone.
    n_cut : int
        Documents of whose texts the page has but the beginning.
    method : "pca" or "umap"
    variance : float or None
        The share of the vectors' variance that the map shows, of PCA.
    """

    path: str
    size_bytes: int
    model_name: str
    n_documents: int
    n_without_vector: int
    n_without_text: int
    n_cut: int
    method: Method
    variance: float | None


def draw_map(
    path: str | Path,
    target: str | Path,
    *,
    collection: str | None = None,
    model_name: str | None = None,
    color_by: str | None = None,
    method: Method = "pca",
    text_chars: int = 500,
) -> DrawnMap:
    """Draw the documents of a library on a page in one file, to look at in any browser, without a network.

    The library is only read, and no model is loaded. The page is written whole or not at all.

    Parameters
    ----------
    path : str or Path
        A library folder or a database file.
    target : str or Path
        The page. One that embstore wrote is replaced, no other file.
    collection : str, optional
        By default the one that a library has by default; of a file that has no texts, all.
    model_name : str, optional
        Where only vectors are stored, and those of several models: whose.
    color_by : str, optional
        The metadata key that the points are coloured by when the page opens; there it can be changed.
    method : "pca" or "umap"
        PCA draws the plane of most variance. UMAP keeps neighbours together, and needs the extra ``umap``; a map of
        15 documents or fewer is drawn by PCA.
    text_chars : int
        How much of each text the page has, to show and to search.

    Returns
    -------
    DrawnMap

    Raises
    ------
    InvalidInputError, LibraryLockedError, SearchIndexError, StoreError
        There is nothing to draw, no document has `color_by`, or the library cannot be read.
    MissingExtraError
        plotly, of the extra ``map``, or umap-learn is not installed.
    TargetError
        The page cannot be written.
    """
    check_method(method)
    check_count(text_chars, "text_chars")
    file = check_target(target)
    if method == "umap":
        import_umap()  # first: its extra brings plotly too
    plotly = read_plotly()
    documents = read_documents(path, collection=collection, model_name=model_name)
    columns = columns_of(documents.metadatas, color_by)
    projected = project(documents.vectors, method)
    if projected.variance is not None:
        method = "pca"
    shown = [_shown(text, text_chars) for text in documents.texts]
    title = name_of(path)
    data = {
        **_data(documents, projected, shown),
        "columns": columns,
        "colorBy": color_by,
        "name": title,
    }
    body = static("map.html").format(title=html.escape(title), about=html.escape(_about(documents, method, projected)))
    styles = static("page.css") + static("map.css")
    text = page(f"{title} · embstore map", body, styles=styles, scripts=(plotly, static("map.js")), data=data)
    return DrawnMap(
        path=str(file),
        size_bytes=write_page(file, text),
        model_name=documents.model_name,
        n_documents=len(documents.doc_ids),
        n_without_vector=documents.n_without_vector,
        n_without_text=documents.texts.count(None),
        n_cut=sum(len(text or "") > text_chars for text in documents.texts),
        method=method,
        variance=projected.variance,
    )


def read_plotly() -> str:
    """Read plotly.js out of the package that ships it.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "map", "a map") from error
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _data(documents: Documents, projected: Projected, shown: list[str]) -> dict[str, Any]:
    points = as_float32(projected.points)
    return {
        "x": packed(np.ascontiguousarray(points[:, 0])),
        "y": packed(np.ascontiguousarray(points[:, 1])),
        "ids": documents.doc_ids,
        "texts": shown,
    }


def _shown(text: str | None, n_chars: int) -> str:
    if text is None:
        return ""
    return text if len(text) <= n_chars else text[:n_chars].rstrip() + " …"


def _about(documents: Documents, method: Method, projected: Projected) -> str:
    n = len(documents.doc_ids)
    how = "by UMAP" if method == "umap" else f"by PCA, {projected.variance or 0:.0%} of the variance"
    without = f" · {documents.n_without_vector:,} without a vector" if documents.n_without_vector else ""
    return f"{n:,} document{'s' * (n != 1)} · {documents.model_name} · {how}{without}"
