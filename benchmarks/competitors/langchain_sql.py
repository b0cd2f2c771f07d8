from __future__ import annotations

import warnings
from typing import Any

from benchmarks.competitors.langchain import LangChain


class LangChainSQL(LangChain):
    name = "LangChain, SQLStore"
    requires = ("langchain_classic.embeddings", "langchain_community.storage.sql")
    durable = "yes"

    def store(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the package, at its import
            from langchain_community.storage import SQLStore

        self._store = SQLStore(namespace="documents", db_url=f"sqlite:///{(self.folder / 'store.db').as_posix()}")
        self._store.create_schema()
        return self._store

    def close(self) -> None:
        self._store.engine.dispose()
