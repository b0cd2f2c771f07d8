"""What stands between a client and a server: hears each message, and can change it, answer nothing, or hang up.

The messages are those of https://www.postgresql.org/docs/current/protocol-message-formats.html.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

SSL, GSS, CANCEL = 80877103, 80877104, 80877102
PARAMETERS = {
    "server_version": "18.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "integer_datetimes": "on",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
}


class HangUpError(Exception):
    """End the connection, before the message is passed on or after."""

    def __init__(self, *, passing_it_on: bool) -> None:
        super().__init__()
        self.passing_it_on = passing_it_on


class Closed(Exception):  # noqa: N818 - no error
    """The other side has ended the connection."""


OnMessage = Callable[[bytes, bytes], bytes]
"""Kind and contents of a client's message to the contents that are passed on; it may raise HangUpError."""


def statement_of(kind: bytes, contents: bytes) -> str:
    """The statement that a message asks for, "" where it asks for none."""
    if kind == b"Q":
        return contents.rstrip(b"\0").decode()
    if kind == b"P":
        return contents.split(b"\0")[1].decode()
    return ""


def with_statement(kind: bytes, contents: bytes, statement: str) -> bytes:
    """A message that asks for another statement, without parameters."""
    if kind == b"Q":
        return statement.encode() + b"\0"
    return contents.split(b"\0")[0] + b"\0" + statement.encode() + b"\0" + struct.pack(">h", 0)


class _Listener:
    """Takes connections on a port of its own, each in a thread."""

    def __init__(self, url: str) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        user = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self._listening.getsockname()[1]}"))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        _send_at_once(client)
        with client, contextlib.suppress(Closed, OSError):
            self.serve(client)

    def serve(self, client: socket.socket) -> None:
        raise NotImplementedError

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


class Proxy(_Listener):
    """Passes everything on; what clients say once they are in goes through `on_message`."""

    on_message: OnMessage = staticmethod(lambda _, contents: contents)

    def serve(self, client: socket.socket) -> None:
        startup = _startup(client)
        with socket.create_connection(self._address) as server:
            _send_at_once(server)
            server.sendall(startup)
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()
            try:
                while True:
                    kind, contents = _message(client)
                    try:
                        server.sendall(_framed(kind, self.on_message(kind, contents)))
                    except HangUpError as hang_up:
                        _abort(client)
                        if hang_up.passing_it_on:
                            server.sendall(_framed(kind, contents))
                            server.shutdown(socket.SHUT_WR)
                            with contextlib.suppress(OSError):
                                while server.recv(65536):
                                    pass
                        return
            finally:
                _abort(client)
                _abort(server)  # closing it alone ends nothing while the other thread waits for its answers


class Pooler(_Listener):
    """Lends each transaction another of a few connections, as PgBouncer does with pool_mode=transaction."""

    def __init__(self, url: str, n_backends: int) -> None:
        self.backends = [psycopg.connect(url, autocommit=True) for _ in range(n_backends)]
        self._free: queue.Queue[socket.socket] = queue.Queue()
        for backend in self.backends:
            self._free.put(socket.socket(fileno=os.dup(backend.pgconn.socket)))
        self.n_transactions = 0
        self._pids = itertools.count(1)
        super().__init__(url)

    def serve(self, client: socket.socket) -> None:
        _startup(client)
        greeting = [_framed(b"R", struct.pack(">i", 0))]
        greeting += [_framed(b"S", f"{name}\0{value}\0".encode()) for name, value in PARAMETERS.items()]
        greeting += [_framed(b"K", struct.pack(">ii", next(self._pids), 0)), _framed(b"Z", b"I")]
        client.sendall(b"".join(greeting))
        while True:
            kind, contents = _message(client)
            if kind == b"X":
                return
            backend = self._free.get()
            backend.setblocking(True)
            try:
                self._transaction(client, backend, kind, contents)
            finally:
                self.n_transactions += 1
                self._free.put(backend)

    def _transaction(self, client: socket.socket, backend: socket.socket, kind: bytes, contents: bytes) -> None:
        while True:
            backend.sendall(_framed(kind, contents))
            if kind in (b"Q", b"S"):
                while (answer := _message(backend))[0] != b"Z":
                    client.sendall(_framed(*answer))
                client.sendall(_framed(*answer))
                if answer[1] == b"I":
                    return
            kind, contents = _message(client)

    def close(self) -> None:
        super().close()
        for backend in self.backends:
            backend.close()
            self._free.get().close()


@contextlib.contextmanager
def standing_before(proxy: Any) -> Iterator[Any]:
    """Let a proxy stand while a block lasts."""
    try:
        yield proxy
    finally:
        proxy.close()


def _startup(client: socket.socket) -> bytes:
    while True:
        header = _exactly(client, 8)
        length, code = struct.unpack(">ii", header)
        if code in (SSL, GSS):
            client.sendall(b"N")
        elif code == CANCEL:
            raise Closed
        else:
            return header + _exactly(client, length - 8)


def _message(sock: socket.socket) -> tuple[bytes, bytes]:
    header = _exactly(sock, 5)
    return header[:1], _exactly(sock, struct.unpack(">i", header[1:])[0] - 4)


def _framed(kind: bytes, contents: bytes) -> bytes:
    return kind + struct.pack(">i", len(contents) + 4) + contents


def _exactly(sock: socket.socket, n: int) -> bytes:
    data = bytearray()
    while len(data) < n:
        some = sock.recv(n - len(data))
        if not some:
            raise Closed
        data += some
    return bytes(data)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while some := source.recv(65536):
            target.sendall(some)
    _abort(target)


def _send_at_once(sock: socket.socket) -> None:
    """Wait for no more to send along, which would take 40 ms a message."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _abort(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
