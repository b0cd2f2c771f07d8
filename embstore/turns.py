"""Threads of a process take turns at encoding for a model, so that a text that several miss is encoded once."""

from __future__ import annotations

import os
import threading

from embstore.identity import ModelIdentity


class Turn:
    """Whose turn it is to encode for one model into one store.

    Attributes
    ----------
    lock : RLock
        Held while a thread encodes and stores; an encoder may itself ask the cache.
    n_done : int
        How many turns are over. Where it has grown since a look-up, the look-up is out of date.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.n_done = 0


# By process too: a lock that another thread held at a fork stays locked in the child.
_turns: dict[tuple[int, str, ModelIdentity], Turn] = {}


def turn_of(store: str, identity: ModelIdentity) -> Turn:
    """Give the turn that the threads of this process share for a model in a store."""
    return _turns.setdefault((os.getpid(), store, identity), Turn())
