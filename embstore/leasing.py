"""Which missing texts of a call are encoded here, where other processes encode for the same store."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Self

from embstore.background import Repeating
from embstore.errors import EmbstoreError
from embstore.identity import ModelIdentity
from embstore.stores.base import Store

_logger = logging.getLogger("embstore.leasing")

# What is claimed at once: about this much of the model's work, or this many texts. Others wait for no more of it.
CLAIM_S = 1.0
CLAIM_ROWS = 1000
CLAIMS_LOOKED_AT = 4

# How long to wait before looking again whether others are through: twice as long each time.
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.5

_of_thread = threading.local()


class AllRows:
    """The rows of a call that are to be encoded, all of them here."""

    def __init__(self, rows: list[int]) -> None:
        self._rows = rows
        self._n_taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def n_left(self) -> int:
        """How many rows are not taken yet."""
        return len(self._rows) - self._n_taken

    def take(self, n: int) -> list[int]:
        """Give the next rows, n at most; none where the rest is others' at present: see `wait`."""
        taken = self._rows[self._n_taken : self._n_taken + n]
        self._n_taken += len(taken)
        return taken

    def took(self, n: int, seconds: float) -> None:
        """Tell how long the model took for some."""

    def wait(self) -> None:
        """Wait until there are rows to take, or none is left. Whoever waits keeps nothing that others wait for."""


class Leases:
    """The leases of a call: each is kept until its text is stored, or the call ends."""

    def __init__(self, store: Store, identity: ModelIdentity, lease_s: float) -> None:
        self._store = store
        self._identity_hash = identity.digest
        self._owner = _owner()
        self.lease_s = lease_s
        self._kept: set[bytes] = set()

    def claim(self, keys: Sequence[bytes], most: int) -> list[int]:
        """See `LeaseStore.claim`."""
        self._kept.update(keys)  # before it is known which: an interrupt can come as soon as they are written
        claim = partial(self._store.leases.claim, self._identity_hash, keys, owner=self._owner)
        mine = self._store.write(lambda: claim(lease_s=self.lease_s, most=most), again=True)
        self.forget(list(set(keys).difference(keys[i] for i in mine)))
        return mine

    def held(self, keys: Sequence[bytes]) -> list[int]:
        """See `LeaseStore.held`."""
        return self._store.leases.held(self._identity_hash, keys, owner=self._owner)

    def renew(self) -> None:
        """Let all last from now on."""
        keys = sorted(self._kept)
        if keys:
            renew = partial(self._store.leases.renew, self._identity_hash, keys, owner=self._owner)
            self._store.write(lambda: renew(lease_s=self.lease_s), again=True)

    def release(self, keys: Sequence[bytes]) -> None:
        """End some, along with a transaction that may yet fail: `forget` them after it."""
        self._store.leases.release(self._identity_hash, keys, owner=self._owner)

    def forget(self, keys: Sequence[bytes]) -> None:
        """Keep some no longer: they are ended."""
        self._kept.difference_update(keys)

    def end(self, keys: Sequence[bytes] | None = None) -> None:
        """End some, or all that are kept."""
        ended = sorted(self._kept if keys is None else keys)
        if ended:
            self._store.write(lambda: self.release(ended), again=True)
            self.forget(ended)


class LeasedRows:
    """The rows of a call that are to be encoded, here or by whoever has a lease on them.

    Few are claimed at once, so that processes with the same texts share them out. Those that another has stored in the
    meantime are left out: they are found by the next look at the store.

    Parameters
    ----------
    leases : Leases
    store : Store
    identity : ModelIdentity
    keys : sequence of bytes
        The content hash of each row.
    rows : sequence of int
        In the order in which they are encoded.
    batch_size : int
        How many are claimed before it is known how long they take.
    """

    def __init__(
        self,
        leases: Leases,
        store: Store,
        identity: ModelIdentity,
        keys: Sequence[bytes],
        rows: Sequence[int],
        batch_size: int,
    ) -> None:
        self._leases = leases
        self._store = store
        self._identity = identity
        self._keys = keys
        self._batch_size = self._most = batch_size
        self._waiting = deque(rows)
        self._mine: list[int] = []
        self._others: list[int] = []
        self._others_seen = False

    def __enter__(self) -> Self:
        # A call of the encoder can take longer than a lease.
        self._renewing = Repeating(self._leases.renew, self._leases.lease_s / 3)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._renewing.end()
        finally:
            try:
                self._leases.end()
            except EmbstoreError as error:  # what the call raises says more, and leases end by themselves
                _logger.warning("leases are kept for %g s: %s", self._leases.lease_s, error)

    @property
    def n_left(self) -> int:
        """See `AllRows.n_left`."""
        return len(self._waiting) + len(self._mine) + len(self._others)

    def take(self, n: int) -> list[int]:
        """See `AllRows.take`."""
        while self._waiting and not self._mine:
            self._claim()
        taken, self._mine = self._mine[:n], self._mine[n:]
        return taken

    def took(self, n: int, seconds: float) -> None:
        """See `AllRows.took`."""
        rows_of_claim = CLAIM_ROWS if seconds * CLAIM_ROWS <= n * CLAIM_S else int(n * CLAIM_S / seconds)
        self._most = max(self._batch_size, rows_of_claim)

    def wait(self) -> None:
        """See `AllRows.wait`: for the first of the others' leases to end, by whoever stores the text, or by itself."""
        pause_s = FIRST_PAUSE_S
        while self._others and not self._waiting:
            held = self._leases.held(self._keys_of(self._others))
            self._waiting.extend(_without(self._others, held))
            self._others = [self._others[i] for i in held]
            if not self._waiting:
                time.sleep(pause_s * random.uniform(0.5, 1))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _claim(self) -> None:
        """Claim what is next of the rows that wait, and see which of them others have, or have stored."""
        some = [self._waiting.popleft() for _ in range(min(CLAIMS_LOOKED_AT * self._most, len(self._waiting)))]
        if self._others_seen:  # to look costs less than to claim
            some = self._not_held(self._not_stored(some))
        if not some:
            return
        claimed = self._leases.claim(self._keys_of(some), self._most)
        n_seen = claimed[-1] + 1 if len(claimed) == self._most else len(some)
        self._waiting.extendleft(reversed(some[n_seen:]))
        others = _without(some[:n_seen], claimed)
        self._others += others
        rows = [some[i] for i in claimed]
        self._mine = self._not_stored(rows)  # again: whoever had a lease on one until now has stored it
        stored = self._keys_of(sorted(set(rows).difference(self._mine)))
        self._leases.end(stored)
        self._others_seen |= bool(others or stored)

    def _not_stored(self, rows: Sequence[int]) -> list[int]:
        found = self._store.read(lambda: self._found(self._keys_of(rows)))
        return [row for row, is_found in zip(rows, found, strict=True) if not is_found]

    def _found(self, keys: Sequence[bytes]) -> list[bool]:
        model = self._store.find_variant(self._identity)
        return [False] * len(keys) if model is None else self._store.look_up(model, keys).found.tolist()

    def _not_held(self, rows: Sequence[int]) -> list[int]:
        held = self._leases.held(self._keys_of(rows))
        self._others += [rows[i] for i in held]
        return _without(rows, held)

    def _keys_of(self, rows: Sequence[int]) -> list[bytes]:
        return [self._keys[row] for row in rows]


def _without(rows: Sequence[int], positions: Sequence[int]) -> list[int]:
    left_out = set(positions)
    return [row for i, row in enumerate(rows) if i not in left_out]


def _owner() -> str:
    """Name this thread as no other is, also of another process or machine: a call within a call claims what it has."""
    if getattr(_of_thread, "pid", None) != os.getpid():
        _of_thread.pid = os.getpid()
        _of_thread.owner = f"{socket.gethostname():.64}:{os.getpid()}:{secrets.token_hex(8)}"
    return str(_of_thread.owner)
