"""Functions, bound methods and callable objects as encoders."""

from __future__ import annotations

from typing import Any

from embstore.encoders.base import NamedEncoder
from embstore.identity import Role


class CallableEncoder(NamedEncoder):
    """A callable that takes a list of str and gives one vector a text; `model_name` has to be given.

    Queries and documents share their vectors: a callable has one way to encode.
    """

    @property
    def watched(self) -> tuple[Any, object]:
        """The object that a bound method is of: the method itself is a new object each time it is asked for."""
        owner = getattr(self.model, "__self__", None)
        function = getattr(self.model, "__func__", None)
        return (self.model, None) if owner is None or function is None else (owner, function)

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        return self.model(texts)

    def _has_query_vectors(self) -> bool:
        return False
