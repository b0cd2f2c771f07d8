"""Copies of a file are damaged: no wrong vector is given, and nothing is left out unsaid."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.faults.holdings import Holdings
from tests.faults.tally import Tally
from tests.scifact import needs_scifact

pytestmark = needs_scifact

N_READERS = 2
PATIENCE_S = 120.0  # for one damaged file, of which a sound one takes 0.1 s

# Small pages, whose vectors overflow them and whose tables are trees of three levels; and those of new files: how many
# documents, and the share of the damages.
FORMS = {"small pages": (60, 1024, 0.8), "large pages": (300, 65536, 0.2)}

N_DAMAGES = {"bit flips": (60, 10_000), "damage of many bytes": (36, 2_000), "truncations": (24, 2_000)}

# Of every so many damaged files one is repaired before it is read: each kind of each form takes its turn.
REPAIRED_OF = (3, 7)

Case = tuple[str, int, bool]


class Reader:
    """A process that reads damaged copies, started anew where one of them ended it."""

    def __init__(self, form: str, file: Path, scratch: Path) -> None:
        n, page_size, _ = FORMS[form]
        self._command = [sys.executable, "-m", "tests.faults.damage_reader", n, file, page_size, scratch]
        self._process: subprocess.Popen[str] | None = None

    def read(self, case: Case) -> dict[str, Any]:
        """What it found, or that it ended or did not."""
        if self._process is None:
            command = list(map(str, self._command))
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            process.kill()

        patience = threading.Timer(PATIENCE_S, give_up)
        patience.start()
        try:
            process.stdin.write(json.dumps(case) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        finally:
            patience.cancel()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self.close()
        return {"case": case, "hung": hung.is_set(), "crashed": not hung.is_set()}

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


class Form:
    """A sound file, and processes that read damaged copies of it."""

    def __init__(self, name: str, folder: Path) -> None:
        n, page_size, self.share = FORMS[name]
        file = folder / "sound.db"
        Holdings(n).build(file, page_size)
        self._readers = [Reader(name, file, folder / f"damaged-{number}.db") for number in range(N_READERS)]

    def read_all(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """Give every case to a reader."""

        def work(number: int) -> list[dict[str, Any]]:
            return [self._readers[number].read(case) for case in cases[number::N_READERS]]

        with ThreadPoolExecutor(N_READERS) as threads:
            return [found for part in threads.map(work, range(N_READERS)) for found in part]

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Form]:
    form = Form(request.param, tmp_path_factory.mktemp("damage"))
    yield form
    form.close()


@pytest.mark.parametrize("kind", N_DAMAGES)
def test_damage_gives_no_wrong_vector_and_loses_nothing_that_verify_does_not_see(
    kind: str, form: Form, tally: Tally, rounds: Callable[[int, int], int]
) -> None:
    n, repaired_of = round(rounds(*N_DAMAGES[kind]) * form.share), rounds(*REPAIRED_OF)
    found = form.read_all([(kind, seed, seed // 4 % repaired_of == 0) for seed in range(n)])
    ended = [one for one in found if "told" not in one]
    answers = [one for one in found if "told" in one]
    broken = [one for one in answers if one["broken"]]
    of_repair = [what for one in broken for what in one["broken"] if what.startswith("repair")]
    wrong = [one for one in broken if any(what.startswith("wrong vector") for what in one["broken"])]
    unseen = [one for one in broken if any(what.startswith("unseen") for what in one["broken"])]
    harmful = [one for one in answers if one["lost"] or one["failed"] or one["changed"] or one["refused"]]
    tally.add(
        f"damage at rest, {kind}",
        damaged_files=len(found),
        with_rows_lost_or_unreadable=len(harmful),
        lost_rows=sum(one["lost"] for one in answers),
        wrong_vectors=len(wrong),
        losses_unseen_by_verify=len(unseen),
        incomplete_answers=len([one for one in broken if any(what.startswith("incomplete") for what in one["broken"])]),
        other_broken_promises=len([one for one in broken if any(what.startswith("other") for what in one["broken"])]),
        crashes=sum(one["crashed"] for one in ended),
        hangs=sum(one["hung"] for one in ended),
    )
    repaired = [one for one in answers if "is_repaired" in one]
    tally.add(
        f"repair after {kind}",
        damaged_files=len(repaired),
        repaired_files=sum(one["is_repaired"] for one in repaired),
        kept_rows=sum(one["kept"] for one in repaired),
        lost_rows_named=sum(one["named"] for one in repaired),
        files_that_may_hold_removed_rows=sum(one["may_hold_removed"] for one in repaired),
        wrong_or_missing_rows_and_other_failures=len(of_repair),
    )
    assert len(found) == n
    assert repaired
    assert ended == []
    assert list(islice(broken, 5)) == []
    assert harmful, "no damage did any harm: it missed all that is stored"
