"""Three figures of a cache, by the names that they always had."""

from __future__ import annotations

from embstore.stored import StoredEmbeddings


def cache_stats(cache: StoredEmbeddings) -> dict[str, int | float]:
    """Give three figures of a cache.

    Returns
    -------
    dict
        "cached_documents": distinct ids; "total_size_mb": size of the file in units of 1024 * 1024 bytes;
        "index_entries": rows of the view.
    """
    stats = cache.stats()
    return {
        "cached_documents": stats.n_doc_ids,
        "total_size_mb": stats.size_bytes / (1024 * 1024),
        "index_entries": stats.n_documents,
    }
