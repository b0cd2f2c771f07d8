"""mteb's own wrapper, which asks for all items of a task at once and gives the model each item as it came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mteb.models import CachedEmbeddingWrapper
from torch.utils.data import DataLoader

from embstore.canary import check_same_model
from embstore.codec import Vectors
from embstore.encoders.base import checked_output

ITEMS_AT_ONCE = 1000  # encoded before they are stored: what an evaluation that is ended loses


class EmbstoreWrapper(CachedEmbeddingWrapper):
    """A CachedEmbeddingWrapper on an EmbstoreBackend.

    mteb's own (2.26) makes its dataloader once more for what is missing, which joins title and text a second time and
    gives other scores than the model has (tests/test_mteb.py::test_scores_are_those_of_the_model_without_a_cache).
    """

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> Any:
        """Give the vectors of items, (n, dim) float32, encoding those that are not stored.

        Raises
        ------
        ModelChangedError
            The model gives another vector for an item than is stored.
        """
        backend: Any = self._get_or_create_cache(task_metadata.name, prompt_type, kwargs)

        def encoded(rows: list[int]) -> Any:
            return self._model.encode(
                DataLoader(inputs.dataset.select(rows), batch_size=batch_size, collate_fn=inputs.collate_fn),
                task_metadata=task_metadata,
                hf_split=hf_split,
                hf_subset=hf_subset,
                prompt_type=prompt_type,
                batch_size=batch_size,
                **kwargs,
            )

        items = list(inputs.dataset)
        found, vectors = backend.get_many(items)
        if found.any():
            _check(backend, int(np.argmax(found)), vectors, encoded)
        missing = np.flatnonzero(~found)
        for start in range(0, len(missing), ITEMS_AT_ONCE):
            rows = missing[start : start + ITEMS_AT_ONCE].tolist()
            backend.add([items[row] for row in rows], encoded(rows))
        return backend.get_many(items)[1] if len(missing) else vectors


def _check(backend: Any, row: int, vectors: Vectors, encode: Callable[[list[int]], Any]) -> None:
    """Compare what is stored of an item with what the model gives for it now, once a backend: an evaluation, a task.

    mteb gives no way to encode a fixed text with the prompts of a task, as `embstore.canary` does elsewhere.

    Raises
    ------
    ModelChangedError
        It is not the model that filled the cache.
    """
    if backend.is_checked or not backend.opened().check_canary:
        return
    (again,) = checked_output(encode([row]), n_texts=1, model_name=backend.identity.model_name)
    check_same_model(backend.identity, vectors[row], again)
    backend.is_checked = True
