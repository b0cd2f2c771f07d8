"""Embedding objects of frameworks as encoders: what they are called, and what of them changes their vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from embstore.encoders import NamedEncoder
from embstore.encoders.base import checked_settings
from embstore.errors import ModelNameError
from embstore.identity import ModelIdentity, Role, Setting

NAMES = ("model_name", "model", "model_id")

# Attributes are taken by name, so that no key of an API gets into the identity, which is stored, and no time limit.
SETTINGS = """
    revision model_version variant deployment deployment_name azure_deployment backend precision quantize
    dimension dimensions output_dimension output_dimensionality truncate_dim normalize normalize_embeddings
    pooling pooling_mode max_length max_seq_length model_max_length num_ctx embedding_ctx_length truncate
    strip_new_lines prompt prompt_name default_prompt_name prefix suffix input_type task task_type embedding_type
""".split()  # noqa: SIM905
ADDRESSES = ["base_url", "api_base", "api_base_url", "openai_api_base", "azure_endpoint", "endpoint", "endpoint_url"]
OF_ROLE: Mapping[Role, list[str]] = {
    "query": ["query_instruction", "query_prefix", "query_prompt", "query_prompt_name"],
    "document": ["embed_instruction", "text_instruction", "text_prefix", "document_prefix", "passage_prefix"],
}
NESTED = ["encode_kwargs", "model_kwargs", "tokenizer_kwargs", "additional_kwargs"]
NESTED_OF_ROLE: Mapping[Role, list[str]] = {"query": ["query_encode_kwargs"], "document": []}


class UnderlyingEncoder(NamedEncoder):
    """An object of a framework that gives vectors; subclasses say how it is called.

    Its identity is its name with its class, because two frameworks may send one text to a model in two forms, and with
    its attributes that are known to change vectors, read anew at each call. What changes queries alone leaves the
    identity of documents as it is, so that another query prompt costs no document a model call.

    Parameters
    ----------
    underlying : object
    model_name : str, optional
        By default what it says of itself in `model_name`, `model` or `model_id`.
    model_settings : mapping of str to scalars, optional
        What else changes its vectors.
    same_queries : bool
        Queries are given the vectors of documents.
    """

    def __init__(
        self,
        underlying: Any,
        model_name: str | None = None,
        model_settings: Mapping[str, Setting] | None = None,
        *,
        same_queries: bool = False,
    ) -> None:
        super().__init__(underlying, model_name)
        self._given = dict(checked_settings({} if model_settings is None else model_settings, self.model_name))
        self._same_queries = same_queries
        ModelIdentity.of(self.model_name, self._settings("document"))  # refused now, not at the first text

    def _has_query_vectors(self) -> bool:
        return not self._same_queries

    def _own_name(self) -> str | None:
        names = (getattr(self.model, attribute, None) for attribute in NAMES)
        # "unknown" is what LlamaIndex calls a model that says no name.
        return next((name for name in names if isinstance(name, str) and name not in ("", "unknown")), None)

    @property
    def model_name(self) -> str:
        """The name of the model.

        Raises
        ------
        ModelNameError
            None was given and the object has none.
        """
        try:
            return super().model_name
        except ModelNameError:
            raise ModelNameError(
                f"a {type(self.model).__name__} says no name of its model; pass model_name='...'"
            ) from None

    def _settings(self, role: Role) -> Mapping[str, Setting]:
        return {"class": type(self.model).__name__, **dict(_found(self.model, role)), **self._given}


def _found(underlying: Any, role: Role) -> Iterator[tuple[str, Setting]]:
    for name in [*SETTINGS, *ADDRESSES, *OF_ROLE[role]]:
        yield from _scalar(name, name, getattr(underlying, name, None))
    for holder in [*NESTED, *NESTED_OF_ROLE[role]]:
        nested = getattr(underlying, holder, None)
        if isinstance(nested, Mapping):
            for name in [*SETTINGS, *OF_ROLE[role]]:
                yield from _scalar(f"{holder}.{name}", name, nested.get(name))


def _scalar(key: str, name: str, value: Any) -> Iterator[tuple[str, Setting]]:
    value = value.value if isinstance(value, Enum) else value
    if isinstance(value, str) and name in ADDRESSES:
        value = bare_address(value)
    if isinstance(value, str | int | float):
        yield key, value


def bare_address(address: str) -> str:
    """Give an address as it may be stored: without user, password and query."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
