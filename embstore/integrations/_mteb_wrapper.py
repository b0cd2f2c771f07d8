"""mteb's own wrapper, which asks for all items of a task at once and gives the model each item as it came."""

from __future__ import annotations

from typing import Any

import numpy as np
from mteb.models import CachedEmbeddingWrapper
from torch.utils.data import DataLoader

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
        """Give the vectors of items, (n, dim) float32, encoding those that are not stored."""
        backend: Any = self._get_or_create_cache(task_metadata.name, prompt_type, kwargs)
        items = list(inputs.dataset)
        found, vectors = backend.get_many(items)
        missing = np.flatnonzero(~found)
        for start in range(0, len(missing), ITEMS_AT_ONCE):
            rows = missing[start : start + ITEMS_AT_ONCE].tolist()
            encoded = self._model.encode(
                DataLoader(inputs.dataset.select(rows), batch_size=batch_size, collate_fn=inputs.collate_fn),
                task_metadata=task_metadata,
                hf_split=hf_split,
                hf_subset=hf_subset,
                prompt_type=prompt_type,
                batch_size=batch_size,
                **kwargs,
            )
            backend.add([items[row] for row in rows], encoded)
        return backend.get_many(items)[1] if len(missing) else vectors
