"""What a call of `SentenceTransformer.encode` asks for: whether a cache has it, and in which type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embstore.codec import Vectors
from embstore.errors import InvalidInputError, PrecisionError


def check_cacheable(options: Mapping[str, Any]) -> None:
    """Raise where a call asks for what is no vector of its text alone.

    Raises
    ------
    PrecisionError
        int8 or uint8.
    InvalidInputError
        Something else than sentence embeddings, or options that are not known to leave vectors as they are.
    """
    if options["precision"] in ("int8", "uint8"):
        raise PrecisionError(
            f"precision {options['precision']!r} gives vectors that depend on the rest of their batch and cannot be "
            f"cached; encode with precision='float32' and call quantize_embeddings(..., calibration_embeddings=...)"
        )
    if options["output_value"] != "sentence_embedding":
        raise InvalidInputError(
            f"output_value {options['output_value']!r} is not cached, sentence embeddings are; call .model.encode"
        )
    if options["kwargs"]:
        raise InvalidInputError(
            f"{', '.join(sorted(options['kwargs']))}: may change the vectors and cannot be part of their identity; "
            f"call .model.encode"
        )


def converted(vectors: Vectors, model: Any, options: Mapping[str, Any]) -> Any:
    """Give what a call asks for of stored vectors, shape (n, dim): an ndarray, a tensor or a list of tensors."""
    output: Any = _derived(vectors, model, options)
    if options["precision"] in ("binary", "ubinary"):
        from sentence_transformers.util import quantize_embeddings

        output = quantize_embeddings(output, precision=options["precision"])
    if options["convert_to_numpy"] and not options["convert_to_tensor"]:
        return output
    import torch

    on_cpu = options["pool"] is not None or isinstance(options["device"], list)
    tensors = torch.from_numpy(output).to("cpu" if on_cpu else options["device"] or model.device)
    return tensors if options["convert_to_tensor"] else list(tensors)


def _derived(vectors: Vectors, model: Any, options: Mapping[str, Any]) -> Vectors:
    """Give vectors as a call asks for them: their leading values, and scaled to length 1.

    By the operations of the library, in its order and in the type that the model computes in, and so with its bits.

    Parameters
    ----------
    vectors : ndarray of shape (n, dim), float32

    Returns
    -------
    ndarray of shape (n, truncate_dim or dim), float32
    """
    shorter = vectors[:, : options["truncate_dim"]]
    if not options["normalize_embeddings"]:
        return np.ascontiguousarray(shorter)
    import torch

    values = torch.from_numpy(shorter).to(model.dtype)
    scaled: Vectors = torch.nn.functional.normalize(values, p=2, dim=1).float().numpy()
    return scaled
