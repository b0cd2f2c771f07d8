"""A local server that answers POST /v1/embeddings, well or in the way that it is told to."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes import CountingEncoder

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""


class EmbeddingsServer(ThreadingHTTPServer):
    """Takes answers from `misbehaving` first, one a request; once these are used up it answers as it should.

    An answer is (status, headers, body), a function of the good answer that returns a bad one, or None: the connection
    is closed without a word. `requests` and `keys` hold what was asked, canaries among them.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = CountingEncoder(dim=4)
        self.misbehaving: list[Answer | Callable[[dict[str, Any]], Any] | None] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.max_chars = 10_000
        self.max_total_chars = 10**9

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def inputs(self) -> list[list[str]]:
        return [request["input"] for request in self.requests]

    def answer(self, request: dict[str, Any]) -> Answer:
        texts = request["input"]
        if any(len(text) > self.max_chars or not text for text in texts):
            return as_json({"error": {"message": "This model's maximum context length is exceeded"}}, 400)
        if sum(map(len, texts)) > self.max_total_chars:
            return as_json({"error": {"message": "too many tokens in this request"}}, 413)
        return as_json(self.good(request))

    def good(self, request: dict[str, Any]) -> dict[str, Any]:
        dim = request.get("dimensions", 4)
        vectors = [self.fake.vector(text)[:dim] for text in request["input"]]
        if request["encoding_format"] == "base64":
            rows: list[Any] = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        else:
            rows = [[float(value) for value in vector] for vector in vectors]
        return {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)], "model": request["model"]}


class _Handler(BaseHTTPRequestHandler):
    server: EmbeddingsServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, **request})
        self.server.keys.append(self.headers["Authorization"])
        chosen = self.server.misbehaving.pop(0) if self.server.misbehaving else self.server.answer(request)
        if callable(chosen):
            bad = chosen(self.server.good(request))
            chosen = bad if isinstance(bad, tuple) else as_json(bad)
        if chosen is None:
            self.close_connection = True
            return
        status, headers, body = chosen
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def as_json(answer: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(answer).encode()


@contextmanager
def running_server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
