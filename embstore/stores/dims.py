"""Which dimension the vectors of a model can have."""

from __future__ import annotations

from embstore.codec import MAX_DIM, Vectors
from embstore.errors import DimensionError
from embstore.identity import ModelIdentity
from embstore.stores.base import StoredModel


def check_dim(identity: ModelIdentity, dim: int, model: StoredModel | None, canary: Vectors | None) -> None:
    """Refuse vectors that are not those of a model.

    Parameters
    ----------
    identity : ModelIdentity
    dim : int
        How many values they have.
    model : StoredModel or None
        What is stored of the identity.
    canary : ndarray of shape (dim,), optional
        Of a model that is not stored yet.

    Raises
    ------
    DimensionError
        The model is stored with another dimension, or it is more than `MAX_DIM`.
    """
    if dim > MAX_DIM:
        raise DimensionError(
            f"the vectors of model {str(identity)!r} have {dim} values, and no more than {MAX_DIM} are stored; "
            f"give one vector a text",
            model_name=identity.model_name,
            dim=dim,
        )
    expected_dim = dim
    if model is not None:
        expected_dim = model.dim
    elif canary is not None:
        expected_dim = canary.size
    if expected_dim != dim:
        raise DimensionError(
            f"the vectors have {dim} values, those of model {str(identity)!r} have {expected_dim}; "
            f"store them under another model_name=",
            model_name=identity.model_name,
            dim=dim,
            expected_dim=expected_dim,
        )
