from __future__ import annotations

from typing import Any

from benchmarks.competitors.langchain import LangChain


class LangChainFiles(LangChain):
    name = "LangChain, LocalFileStore"
    requires = ("langchain_classic.embeddings", "langchain_classic.storage")
    durable = "survives kill"  # a file that was being written is left torn, and raises when it is read

    def store(self) -> Any:
        from langchain_classic.storage import LocalFileStore

        return LocalFileStore(self.folder)
