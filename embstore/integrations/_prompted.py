"""A SentenceTransformer as one call uses it: with its own prompt and task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embstore.encoders.base import without_surrogates
from embstore.encoders.sentence_transformer import SentenceTransformerEncoder
from embstore.errors import InvalidInputError
from embstore.identity import Role, Setting

CHANGES_NO_VECTOR = ("device", "pool", "chunk_size")


class PromptedEncoder(SentenceTransformerEncoder):
    """A SentenceTransformer with what one call of `encode`, `encode_query` or `encode_document` says.

    Its vectors are as long as the model gives them and not scaled: what a call wants shorter or of length 1 is made of
    these (`embstore.integrations._encode_options`), so that no text is encoded once more for it.

    Parameters
    ----------
    model : SentenceTransformer
    model_name : str or None
    task : "query", "document", another task, or None
    options : mapping
        The arguments of the call, every one that the library knows, defaults included.
    """

    def __init__(self, model: Any, model_name: str | None, task: str | None, options: Mapping[str, Any]) -> None:
        super().__init__(model, model_name)
        self._plain = SentenceTransformerEncoder(model, model_name)
        self._task = task
        self._given = self._resolved(options["prompt"], options["prompt_name"])
        own_dim, asked_dim = model.truncate_dim, options["truncate_dim"]
        # More than the model is set to give cannot be made of what it gives.
        self._truncate_dim = asked_dim if None not in (own_dim, asked_dim) and asked_dim > own_dim else None
        self._where = {name: options[name] for name in CHANGES_NO_VECTOR}

    def _resolved(self, prompt: str | None, prompt_name: str | None) -> str | None:
        """Find the prompt as the library does, which tells those that it gives no name apart by the method called."""
        if prompt is not None:
            return prompt
        if prompt_name is not None:
            if prompt_name not in self.model.prompts:
                raise InvalidInputError(f"prompt_name {prompt_name!r} is not one of {sorted(self.model.prompts)}")
            named: str = self.model.prompts[prompt_name]
            return named
        if self._task in ("query", "document"):
            return self._plain._prompt("query" if self._task == "query" else "document")
        default: str | None = self.model.prompts.get(self.model.default_prompt_name)
        return default

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        return self.model.encode(
            [without_surrogates(text) for text in texts],
            prompt=self._given,
            batch_size=batch_size,
            show_progress_bar=False,
            truncate_dim=self._truncate_dim,
            **self._where,
            **({} if self._task is None else {"task": self._task}),
        )

    def _prompt(self, role: Role) -> str | None:
        return self._given

    def _settings(self, role: Role) -> Mapping[str, Setting]:
        settings = dict(super()._settings(role))
        if self._truncate_dim is not None:
            settings["truncate_dim"] = int(self._truncate_dim)
        if self._plain.task_matters() and self._task not in ("query", "document"):
            settings["task"] = self._task or ""
        return settings

    def _distinct(self, role: Role) -> Role:
        """Give the role under which a plain encoder stores the same vectors."""
        if self._plain.task_matters():
            return "query" if self._task == "query" else "document"
        as_query = (self._given or "") == (self._plain._prompt("query") or "")
        return "query" if as_query and self._plain._has_query_vectors() else "document"
