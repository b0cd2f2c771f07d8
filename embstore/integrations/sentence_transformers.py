"""A SentenceTransformer whose `encode` asks a cache first."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from embstore.cache import EmbeddingCache
from embstore.encoders import as_encoder
from embstore.encoders.sentence_transformer import SentenceTransformerEncoder
from embstore.errors import InvalidTypeError
from embstore.integrations._encode_options import check_cacheable, converted
from embstore.integrations._owning import OwnsCache, opened
from embstore.integrations._prompted import PromptedEncoder


class CachedSentenceTransformer(OwnsCache):
    """A SentenceTransformer that encodes no text twice; all but `encode*` is the model's own, also what is set.

    Plain calls share the vectors of `cache.embed` and `embed_query`, prompts have their own; what is truncated or
    normalised is made of either.

    Parameters
    ----------
    model : SentenceTransformer or str
        A str is a hub name or a folder.
    cache : EmbeddingCache, str or Path
        A path is opened, and closed by `close`.
    model_name : str, optional
        The name to store vectors under, where it is not the model's own.

    Raises
    ------
    InvalidTypeError, MissingExtraError, ModelLoadError, StoreError
    """

    def __init__(self, model: Any, cache: EmbeddingCache | str | Path, *, model_name: str | None = None) -> None:
        encoder = as_encoder(model)
        if not isinstance(encoder, SentenceTransformerEncoder):
            raise InvalidTypeError(f"model is {type(model).__name__}, not a SentenceTransformer")
        # Not by setattr, which sets what belongs to the model.
        vars(self).update(zip(("cache", "_opened"), opened(cache), strict=True), model=encoder.model, _name=model_name)

    def encode(self, *arguments: Any, **options: Any) -> Any:
        """Give what `SentenceTransformer.encode` gives for the same arguments, encoding only what is not stored.

        Returns
        -------
        ndarray of shape (dim,) for a str, (n, dim) for n, float32; tensors where they are asked for

        Raises
        ------
        PrecisionError
            int8 or uint8: those vectors depend on the rest of their batch. "binary" and "ubinary" can be had.
        InvalidInputError, InvalidTypeError
            Something else than sentence embeddings of texts, or an option that is not known.
        EmbstoreError
            As of `EmbeddingCache.embed`.
        """
        return self._encode(options.pop("task", None), arguments, options)

    def encode_query(self, *arguments: Any, **options: Any) -> Any:
        """Give what `SentenceTransformer.encode_query` gives; as `encode` otherwise."""
        return self._encode("query", arguments, options)

    def encode_document(self, *arguments: Any, **options: Any) -> Any:
        """Give what `SentenceTransformer.encode_document` gives; as `encode` otherwise."""
        return self._encode("document", arguments, options)

    def _encode(self, task: str | None, arguments: tuple[Any, ...], given: dict[str, Any]) -> Any:
        if "sentences" in given:  # the name of `inputs` until version 6
            given["inputs"] = given.pop("sentences")
        bound = inspect.signature(self.model.encode).bind(*arguments, **given)
        bound.apply_defaults()
        options, inputs = bound.arguments, bound.arguments["inputs"]
        check_cacheable(options)
        encoder = PromptedEncoder(self.model, self._name, task, options)
        texts = [inputs] if isinstance(inputs, str) else inputs.tolist() if isinstance(inputs, np.ndarray) else inputs
        how = {"batch_size": options["batch_size"], "progress": options["show_progress_bar"]}
        vectors = self.cache.embed(texts, encoder, **how)
        if not len(vectors):
            return self.model.encode([], *bound.args[1:], **bound.kwargs)  # whatever the library makes of nothing
        return converted(vectors, self.model, options)[0 if isinstance(inputs, str) else slice(None)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("model", "cache", "_opened", "_name"):  # copied, and not made yet
            raise AttributeError(name)
        value = getattr(self.model, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = value(*arguments, **options)
            return self if result is self.model else result  # .to("cuda") and the like

        return call if inspect.ismethod(value) and value.__self__ is self.model else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.model, name, value)

    def __call__(self, *arguments: Any, **options: Any) -> Any:  # noqa: D102
        return self.model(*arguments, **options)

    def __getitem__(self, index: Any) -> Any:
        return self.model[index]

    def __len__(self) -> int:
        return len(self.model)
