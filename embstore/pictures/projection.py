"""Vectors to points of a plane."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from embstore.codec import Vectors
from embstore.errors import InvalidInputError, MissingExtraError

Method = Literal["pca", "umap"]
METHODS: tuple[Method, ...] = ("pca", "umap")

_SAMPLE = 10_000  # rows, from which the plane is computed; all are put on it
_BLOCK = 4096
_NEIGHBORS = 15  # of UMAP, which needs more documents than that


class Projected(NamedTuple):
    """Points of a plane.

    Attributes
    ----------
    points : ndarray of shape (n, 2), float32
    variance : float or None
        The share of the vectors' variance that the plane shows; None where the method keeps no distances.
    """

    points: npt.NDArray[np.float32]
    variance: float | None


def check_method(method: str) -> Method:
    """Give the method.

    Raises
    ------
    InvalidInputError
    """
    if method not in METHODS:
        raise InvalidInputError(f"method is {method!r:.80}, not one of {', '.join(METHODS)}")
    return method


def project(vectors: Vectors, method: Method) -> Projected:
    """Put vectors on a plane; the same vectors always come to the same points.

    Parameters
    ----------
    vectors : ndarray of shape (n, dim), float32
        Their directions count, not their lengths, as in a search by cosine.
    method : "pca" or "umap"
        The plane of most variance, of all or of 10,000 vectors spread evenly; or a plane on which neighbours stay
        neighbours.

    Raises
    ------
    MissingExtraError
        umap-learn is not installed.
    """
    units = _units(vectors)
    return _umap(units) if method == "umap" and len(units) > _NEIGHBORS else _pca(units)


def import_umap() -> Any:
    """Import umap-learn, which takes a dozen seconds.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import umap
    except ImportError as error:
        raise MissingExtraError("umap-learn", "umap", "a map by UMAP") from error
    return umap


def _units(vectors: Vectors) -> Vectors:
    units = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK].astype(np.float64)  # the length of a float32 vector can be infinite
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        units[start : start + _BLOCK] = block / np.where(lengths == 0, 1, lengths)
    return units


def _pca(units: Vectors) -> Projected:
    n = len(units)
    sample = units[np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.intp)].astype(np.float64)
    mean = sample.mean(axis=0)
    sample -= mean
    total = float((sample**2).sum())
    axes, shown = _main_axes(sample)
    points = np.zeros((n, 2), dtype=np.float32)
    for start in range(0, n, _BLOCK):
        points[start : start + _BLOCK, : axes.shape[1]] = (units[start : start + _BLOCK] - mean) @ axes
    return Projected(points, min(shown / total, 1.0) if total > 0 else 1.0)


def _main_axes(centered: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Give the two directions of most variance, (dim, 2 or fewer), and the sum of squares along them.

    They are eigenvectors of the smaller of the two products of the matrix with itself.
    """
    n, dim = centered.shape
    values, found = np.linalg.eigh(centered.T @ centered if n >= dim else centered @ centered.T)
    kept = [i for i in range(len(values) - 1, max(len(values) - 3, -1), -1) if values[i] > 1e-12]
    axes = found[:, kept] if n >= dim else centered.T @ found[:, kept] / np.sqrt(values[kept])
    # Which of the two signs comes out is the machine's choice: let the largest value of each be positive.
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] if axes.size else np.ones(axes.shape[1])
    return axes * np.sign(largest), float(values[kept].sum())


def _umap(units: Vectors) -> Projected:
    umap = import_umap()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fixed seed means one thread
        reducer = umap.UMAP(n_neighbors=_NEIGHBORS, metric="cosine", random_state=0)
        points = reducer.fit_transform(units)
    return Projected(np.nan_to_num(np.asarray(points, dtype=np.float32)), None)
