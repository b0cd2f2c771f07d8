"""Threads of a process claim the texts that they encode, so that a text that several miss is encoded once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from embstore.identity import ModelIdentity
from embstore.stores.locations import is_url

Place = tuple[int, str, ModelIdentity]
"""Process, file, model. The process: what another thread claimed before a fork is nobody's in the child."""


@dataclass
class _Owner:
    thread: int
    under_way: threading.Lock = field(default_factory=threading.Lock)  # not an Event, whose own lock can stay taken


@dataclass(frozen=True)
class Claimed:
    """What came of a claim.

    Attributes
    ----------
    mine : list of int
        Which of the contents no other thread has claimed.
    others : list of Lock
        Each taken until a thread that has claimed some of the rest is through with them.
    """

    mine: list[int]
    others: list[threading.Lock]

    def wait_for_others(self) -> None:
        """Wait for them, after the block of the claim: two threads inside of theirs could wait for each other."""
        for other in self.others:
            with other:
                pass


_owners: dict[Place, dict[bytes, _Owner]] = {}  # by content hash
_lock = threading.Lock()
_n_released = 0


def n_released() -> int:
    """Count the claims that are over. Where it has grown since a look-up, the look-up can be out of date."""
    return _n_released


@contextlib.contextmanager
def claim(store: str, identity: ModelIdentity, keys: Sequence[bytes]) -> Iterator[Claimed]:
    """Claim contents for this thread while the block lasts.

    Parameters
    ----------
    store : str
        Its location.
    identity : ModelIdentity
    keys : sequence of bytes
        Content hashes, distinct.
    """
    global _n_released
    if not keys:
        yield Claimed([], [])
        return
    where = (os.getpid(), store if is_url(store) else os.path.realpath(store), identity)
    me = _Owner(threading.get_ident())
    claimed: dict[bytes, _Owner] = {}
    mine: list[int] = []
    with me.under_way:
        try:
            with _lock:
                claimed = _owners.setdefault(where, claimed)
                owners = [_owner(claimed, key, me) for key in keys]
            # What this thread has claimed already: an encoder that asks the cache itself must not wait for itself.
            mine = [i for i, owner in enumerate(owners) if owner.thread == me.thread]
            others = {id(owner): owner.under_way for owner in owners if owner.thread != me.thread}
            yield Claimed(mine, list(others.values()))
        finally:  # of all keys, since an interrupt can come at any place above
            with _lock:
                for key in keys:
                    if claimed.get(key) is me:
                        del claimed[key]
                if not claimed and _owners.get(where) is claimed:
                    del _owners[where]
                _n_released += bool(mine)


def _owner(claimed: dict[bytes, _Owner], key: bytes, me: _Owner) -> _Owner:
    owner = claimed.setdefault(key, me)
    if not owner.under_way.locked():  # an interrupt kept it from taking its claim back
        owner = claimed[key] = me
    return owner


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _owners.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
