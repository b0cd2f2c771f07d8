"""What can only be read is read, never written to, and nothing is laid beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from embstore import EmbeddingCache, EmbstoreError
from embstore.canary import CANARY_TEXT
from embstore.cli import main as command
from tests.fakes import CountingEncoder
from tests.faults.operations import make_killed, make_template
from tests.faults.tally import Tally
from tests.golden import make_golden as golden

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions and mounts of POSIX")

NOBODY = 65534
IDS = [f"doc {i}" for i in range(30)]
TEXTS = [f"text {i}" for i in range(30)]

Seen = dict[str, Any]


# --- places ---------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    (made / "place").mkdir()
    yield made
    for path in (made, *made.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(made)


@contextmanager
def read_only_file(place: Path) -> Iterator[None]:
    place.chmod(0o777)
    for file in place.iterdir():
        file.chmod(0o444)
    yield


@contextmanager
def read_only_folder(place: Path) -> Iterator[None]:
    for file in place.iterdir():
        file.chmod(0o666)
    place.chmod(0o555)
    yield


@contextmanager
def of_another_user(place: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    for file in place.iterdir():
        file.chmod(0o644)
    place.chmod(0o755)
    yield


@contextmanager
def read_only_mount(place: Path) -> Iterator[None]:
    """Bound to itself, read-only: also for root."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount")
    bound = subprocess.run(["mount", "--bind", place, place], capture_output=True, text=True)
    if bound.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {bound.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        yield
    finally:
        subprocess.run(["umount", place], check=True)


Place = Callable[[Path], Any]
PLACES: dict[str, Place] = {
    "file": read_only_file,
    "folder": read_only_folder,
    "another user's": of_another_user,
    "mount": read_only_mount,
}


def as_reader(place: str, act: Callable[[Path], Seen], path: Path) -> Seen:
    """Act as somebody for whom permissions count: where root runs the tests, in a child that is another user."""
    if os.geteuid() != 0 or place == "mount":
        return act(path)
    act_on_a_copy(act, path)  # whatever is imported on first use may be out of the other's reach
    ours, theirs = Pipe()
    if os.fork() == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            theirs.send(act(path))
        except BaseException:
            theirs.send({"failed": traceback.format_exc()})
        finally:
            os._exit(0)
    theirs.close()
    seen: Seen = ours.recv()
    os.wait()
    return seen


def act_on_a_copy(act: Callable[[Path], Seen], path: Path) -> None:
    with tempfile.TemporaryDirectory() as copied:
        copy = Path(copied) / "place" / path.name
        shutil.copytree(path.parent, copy.parent)
        if copy.exists():
            copy.chmod(0o400)
        act(copy)


def everything_in(place: Path) -> dict[str, tuple[bytes, int]]:
    """Names, bytes and when they were last written; nobody may have one open."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in place.iterdir()}


# --- acts -----------------------------------------------------------------------------------

WRITES: dict[str, Callable[[EmbeddingCache, CountingEncoder], object]] = {
    "get": lambda cache, encoder: cache.get("new", "a text that is not there", encoder),
    "get_many": lambda cache, encoder: cache.get_many(IDS, [*TEXTS[1:], "not there either"], encoder),
    "embed": lambda cache, encoder: cache.embed(["nor this"], encoder),
    "another model": lambda cache, encoder: cache.get(IDS[0], TEXTS[0], encoder, model_name="another"),
    "put_many": lambda cache, _: cache.put_many(["a"], ["a"], np.ones((1, 8)), model_name="fake"),
    "invalidate": lambda cache, _: cache.invalidate(IDS[0]),
    "clear": lambda cache, _: cache.clear(),
    "clear of a model": lambda cache, _: cache.clear(model_name="fake"),
    "prune": lambda cache, _: cache.prune(standalone=True),
    "rename_model": lambda cache, _: cache.rename_model("fake", "renamed"),
    "convert": lambda cache, _: cache.convert("fake", dtype="float16"),
    "compact": lambda cache, _: cache.compact(),
}


def use(path: Path) -> Seen:
    """Read in every way, and try every write."""
    encoder, seen = CountingEncoder(), {}
    expected = encoder.vectors(TEXTS)
    with EmbeddingCache(path) as cache:
        found, matrix = cache.matrix("fake")
        pages = [page for _, page in cache.iter_matrix("fake", batch_rows=7)]
        seen["read"] = {
            "get": np.array_equal(cache.get(IDS[3], TEXTS[3], encoder), expected[3]),
            "get under a new id": np.array_equal(cache.get("new id", TEXTS[4], encoder), expected[4]),
            "get_many": np.array_equal(cache.get_many(IDS, TEXTS, encoder), expected),
            "embed": np.array_equal(cache.embed(TEXTS[5:9], encoder), expected[5:9]),
            "matrix": (sorted(found), np.array_equal(matrix, encoder.vectors([TEXTS[IDS.index(i)] for i in found]))),
            "iter_matrix": np.array_equal(np.concatenate(pages), matrix),
            "documents": len(list(cache.documents())),
            "stats": (cache.stats().n_documents, cache.stats().n_vectors),
            "missing": cache.missing(["unknown", *TEXTS], encoder),
            "verify": cache.verify(),
            "calls": encoder.calls,
        }
        canaries = encoder.n_canaries
        seen["written"] = {name: error_of(lambda act=act: act(cache, encoder)) for name, act in WRITES.items()}
        seen["calls for misses"] = (encoder.calls, encoder.n_canaries - canaries)
    for name in ("stats", "ls", "verify"):
        seen[name] = CliRunner().invoke(command, [name, str(path)]).exit_code
    return seen


def error_of(act: Callable[[], object]) -> str:
    try:
        act()
    except EmbstoreError as error:
        return type(error).__name__
    return ""


EXPECTED: Seen = {
    "read": {
        **dict.fromkeys(("get", "get under a new id", "get_many", "embed", "iter_matrix"), True),
        "matrix": (sorted(IDS), True),
        "documents": 30,
        "stats": (30, 30),
        "missing": ["unknown"],
        "verify": [],
        "calls": [],
    },
    "written": dict.fromkeys(WRITES, "ReadOnlyError"),
    "calls for misses": ([], 0),
    **dict.fromkeys(("stats", "ls", "verify"), 0),
}


def open_only(path: Path) -> Seen:
    try:
        EmbeddingCache(path).close()
    except EmbstoreError as error:
        says = "killed while it wrote"
        return {"opened": type(error).__name__, "says": says if says in str(error) else ""}
    return {"opened": ""}


def use_golden(path: Path) -> Seen:
    """Read a file that an older version made."""
    encoder = golden.GoldenEncoder("plain", dim=7)
    texts = [golden.STANDALONE, "new"]
    with EmbeddingCache(path) as cache:
        return {
            "get": np.array_equal(cache.embed(texts[:1], encoder), encoder.vectors(texts[:1])),
            "miss": error_of(lambda: cache.embed(texts, encoder)),
            "written": error_of(lambda: cache.clear()),
            "verify": cache.verify(),
            "has documents": len(list(cache.documents())) == len(cache) > 0,
            "encoded": [text for text in encoder.texts if text != CANARY_TEXT],
        }


# --- tests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_what_can_only_be_read_is_read_and_every_write_is_refused(place: str, folder: Path, tally: Tally) -> None:
    path = folder / "place" / "embeddings.db"
    with EmbeddingCache(path) as cache:
        cache.get_many(IDS, TEXTS, CountingEncoder())
    with PLACES[place](path.parent):
        before = everything_in(path.parent)
        seen = as_reader(place, use, path)
        assert "failed" not in seen, seen["failed"]
        after = everything_in(path.parent)
    tally.add(
        "read-only",
        places=1,
        reads=len(EXPECTED["read"]),
        refused_writes=list(seen["written"].values()).count("ReadOnlyError"),
        writes_let_through=list(seen["written"].values()).count(""),
        files_beside=len(after) - len(before),
    )
    assert seen == EXPECTED
    assert after == before


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_a_file_of_an_older_version_is_read_as_it_is(place: str, version: int, folder: Path, tally: Tally) -> None:
    path = folder / "place" / "embeddings.db"
    shutil.copyfile(golden.FOLDER / f"schema_{version}.db", path)
    with PLACES[place](path.parent):
        before = everything_in(path.parent)
        assert as_reader(place, use_golden, path) == {
            **dict.fromkeys(("get", "has documents"), True),
            **dict.fromkeys(("miss", "written"), "ReadOnlyError"),
            "verify": [],
            "encoded": [],
        }
        assert everything_in(path.parent) == before
    tally.add("read-only", older_files=1)


@pytest.mark.parametrize("place", PLACES)
def test_half_of_a_transaction_that_cannot_be_rolled_back_is_not_given_out(
    place: str, folder: Path, tally: Tally
) -> None:
    path, made = folder / "place" / "embeddings.db", folder / "made.db"
    make_template(made)
    make_killed(made, path.parent)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}-journal"]
    with PLACES[place](path.parent):
        before = everything_in(path.parent)
        assert as_reader(place, open_only, path) == {"opened": "ReadOnlyError", "says": "killed while it wrote"}
        assert everything_in(path.parent) == before
    for file in path.parent.iterdir():
        file.chmod(0o600)
    path.parent.chmod(0o755)
    with EmbeddingCache(path) as cache, EmbeddingCache(made) as original:
        assert cache.verify() == []
        assert sorted(map(str, cache.documents())) == sorted(map(str, original.documents()))
    tally.add("read-only", unfinished_transactions_refused=1)


@pytest.mark.parametrize("place", ["folder", "another user's", "mount"])
def test_no_cache_is_made_where_nothing_can_be(place: str, folder: Path, tally: Tally) -> None:
    path = folder / "place" / "embeddings.db"
    with PLACES[place](path.parent):
        assert as_reader(place, open_only, path) == {"opened": "StorePathError", "says": ""}
        assert everything_in(path.parent) == {}
    tally.add("read-only", new_files_refused=1)
