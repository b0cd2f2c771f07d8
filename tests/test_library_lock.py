"""One process a library folder: real processes, real clients."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from embstore.errors import LibraryLockedError, SearchIndexError, StorePathError
from embstore.search.collection import open_client
from embstore.search.lock import LOCK_NAME, LibraryHandle
from embstore.search.note import HOLDER_NAME

chromadb = pytest.importorskip("chromadb", reason="needs the extra chroma")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# The lock asks no more of a client than that it can be closed, and importing chromadb takes its time.
HOLDER = """
import io, sys
from pathlib import Path
from embstore.search.lock import LibraryHandle
handle = LibraryHandle(Path(sys.argv[1]), lambda folder: io.BytesIO())
print("held", flush=True)
sys.stdin.readline()
handle.close()
"""


def python(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def is_free(folder: Path) -> bool:
    """Tell whether another process can hold a folder now."""
    process = python(HOLDER, folder)
    return process.returncode == 0 and "LibraryLockedError" not in process.stderr


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Hold a folder in another process until the test is over."""
    processes = []

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.communicate()


def test_a_second_process_is_told_who_holds_the_folder(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    holder = hold(tmp_path)
    with pytest.raises(LibraryLockedError) as refusal:
        LibraryHandle(tmp_path, open_client)
    facts = refusal.value.facts
    assert (facts["pid"], facts["host"], facts["program"]) == (holder.pid, socket.gethostname(), "-c")
    assert f"process {holder.pid} on {socket.gethostname()} (-c) since {facts['since']}" in str(refusal.value)
    assert f"chroma run --path {tmp_path}" in str(refusal.value)
    assert "client=chromadb.HttpClient()" in str(refusal.value)


def test_the_folder_is_free_when_its_holder_was_killed(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    assert json.loads((tmp_path / HOLDER_NAME).read_text())["pid"] == holder.pid
    handle = LibraryHandle(tmp_path, open_client)
    assert json.loads((tmp_path / HOLDER_NAME).read_text())["pid"] == os.getpid()
    handle.close()


# --- unclean ends ---------------------------------------------------------------------------


@pytest.fixture
def killed(tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]) -> Path:
    """A folder whose holder was killed."""
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    return tmp_path


def test_a_folder_that_was_closed_is_not_checked(tmp_path: Path) -> None:
    for _ in range(2):
        handle = LibraryHandle(tmp_path, open_client, lambda *_: pytest.fail("checked"))
        assert not handle.was_unclean
        assert not handle.is_suspect("documents")
        handle.close()


def test_a_folder_whose_holder_was_killed_is_checked_before_a_client_opens_it(killed: Path) -> None:
    steps = []

    def check(folder: Path, failed: frozenset[str]) -> set[str]:
        steps.append(f"check {folder == killed.resolve()} {sorted(failed)} {is_free(folder)}")
        return {"documents"}

    def opening(folder: Path) -> Any:
        steps.append("open")
        return open_client(folder)

    handle = LibraryHandle(killed, opening, check)
    assert steps == ["check True [] False", "open"]
    assert handle.was_unclean
    assert (handle.is_suspect("documents"), handle.is_suspect("others")) == (True, False)
    second = LibraryHandle(killed, opening, check)
    assert len(steps) == 2
    handle.close()
    second.close()


def test_a_folder_stays_unclean_until_all_that_was_suspect_is_settled(killed: Path) -> None:
    for settled, stays in (([], True), (["a"], True), (["a", "b"], False)):
        handle = LibraryHandle(killed, open_client, lambda *_: {"a", "b"})
        assert handle.was_unclean
        for name in settled:
            handle.settle(name)
        handle.close()
        assert (killed / HOLDER_NAME).exists() is stays


@pytest.mark.parametrize("found", [None, "raises"])
def test_a_folder_stays_unclean_where_the_check_came_to_no_end(killed: Path, found: str | None) -> None:
    def check(folder: Path, failed: frozenset[str]) -> None:
        if found == "raises":
            raise KeyboardInterrupt

    for _ in range(2):
        try:
            handle = LibraryHandle(killed, open_client, check)
        except KeyboardInterrupt:
            assert found == "raises"
        else:
            assert handle.is_suspect("anything")
            handle.close()
        assert (killed / HOLDER_NAME).exists()
        assert is_free(killed)


def test_failures_are_noted_at_once_and_told_to_the_next_check(tmp_path: Path) -> None:
    handle = LibraryHandle(tmp_path, open_client)
    handle.suspect("a")
    handle.suspect("b")
    handle.settle("b")
    assert json.loads((tmp_path / HOLDER_NAME).read_text())["failed"] == ["a"]
    handle.close()
    told = []

    def check(folder: Path, failed: frozenset[str]) -> set[str]:
        told.append(failed)
        return set(failed)

    handle = LibraryHandle(tmp_path, open_client, check)
    assert told == [{"a"}]
    handle.settle("a")
    handle.close()
    assert not (tmp_path / HOLDER_NAME).exists()


def test_a_folder_can_be_checked_while_no_client_has_it_open(tmp_path: Path) -> None:
    handle = LibraryHandle(tmp_path, open_client)
    before = handle.client
    handle.suspect("a")
    handle.check(lambda folder, failed: set(failed) | {"b"})
    assert handle.client is not before
    assert handle.client.heartbeat()
    assert [handle.is_suspect(name) for name in "abc"] == [True, True, False]
    second = LibraryHandle(tmp_path, open_client)
    with pytest.raises(LibraryLockedError, match="in use by other engines of this process; close them"):
        handle.check(lambda *_: set())
    second.close()
    handle.close()


@pytest.mark.parametrize(
    ("end", "is_unclean"),
    [("", False), ("sys.exit(1)", False), ("raise ValueError", False), ("os._exit(0)", True), ("os.abort()", True)],
)
def test_a_program_that_just_ends_is_no_unclean_end(tmp_path: Path, end: str, is_unclean: bool) -> None:
    script = f"""
import os, sys
from pathlib import Path
from embstore.search.collection import open_client
from embstore.search.lock import LibraryHandle
handle = LibraryHandle(Path(sys.argv[1]), open_client)
handle.client.create_collection("documents", embedding_function=None).add(ids=["a"], embeddings=[[1.0, 2.0]])
print(sorted(path.name for path in Path(sys.argv[1]).glob("*.json")), flush=True)
{end}
"""
    assert python(script, tmp_path).stdout == f"['{HOLDER_NAME}']\n"
    assert (tmp_path / HOLDER_NAME).exists() is is_unclean


# --- notes and paths ------------------------------------------------------------------------


def test_a_missing_or_damaged_note_about_the_holder_still_gives_a_clear_refusal(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    hold(tmp_path)
    note = tmp_path / HOLDER_NAME
    note.unlink()
    for damage in (None, "", "{", "[]", "{}", '{"pid": [1], "host": null}', "\0", "[" * 100_000, "\xff"):
        if damage is not None:
            note.write_text(damage, encoding="latin-1")
        with pytest.raises(LibraryLockedError, match="is open in another process; one process a folder") as refusal:
            LibraryHandle(tmp_path, open_client)
        assert refusal.value.facts["pid"] is None


def test_every_spelling_of_a_path_gives_the_same_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    spellings = [folder, Path(f"{folder}/"), tmp_path / "q" / ".." / "p", Path("p")]
    (tmp_path / "q").mkdir()
    monkeypatch.chdir(tmp_path)
    try:
        (tmp_path / "link").symlink_to(folder, target_is_directory=True)
        spellings.append(tmp_path / "link")
    except OSError:  # Windows grants links to few
        pass
    handles = [LibraryHandle(path, open_client) for path in spellings]
    assert len({id(handle.client) for handle in handles}) == 1
    for handle in handles:
        handle.close()


def test_the_folder_is_held_until_the_last_handle_is_closed(tmp_path: Path) -> None:
    first, second = LibraryHandle(tmp_path, open_client), LibraryHandle(tmp_path, open_client)
    first.close()
    first.close()
    assert second.client.heartbeat()
    assert not is_free(tmp_path)
    second.close()
    assert is_free(tmp_path)


def test_a_handle_may_be_closed_by_another_thread(tmp_path: Path) -> None:
    closer = Thread(target=LibraryHandle(tmp_path, open_client).close)
    closer.start()
    closer.join()
    assert is_free(tmp_path)


def test_nothing_but_the_lock_file_stays_when_the_folder_is_released(tmp_path: Path) -> None:
    LibraryHandle(tmp_path, open_client).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chroma.sqlite3", LOCK_NAME]


def test_a_folder_that_chroma_cannot_open_is_released(tmp_path: Path) -> None:
    (tmp_path / "chroma.sqlite3").write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(SearchIndexError, match="could not open the library folder"):
            LibraryHandle(tmp_path, open_client)
    (tmp_path / "chroma.sqlite3").unlink()
    assert is_free(tmp_path)


def test_a_client_of_the_users_own_on_the_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    mine: Any = chromadb.PersistentClient(tmp_path.resolve())
    with mine, pytest.raises(SearchIndexError, match=r"already exists .* with different settings"):
        LibraryHandle(tmp_path, open_client)


def test_a_file_in_the_way_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorePathError, match="cannot be created"):
        LibraryHandle(tmp_path / "file", open_client)
    assert (tmp_path / "file").read_text() == "mine"


FORK = """
import os, subprocess, sys
from pathlib import Path
from embstore.errors import LibraryLockedError
from embstore.search.collection import open_client
from embstore.search.lock import LibraryHandle

folder = Path(sys.argv[1])
handle = LibraryHandle(folder, open_client)
parent = os.getpid()
child = os.fork()
if child == 0:
    for attempt in (lambda: handle.client, lambda: LibraryHandle(folder, open_client)):
        try:
            attempt()
        except LibraryLockedError as error:
            print("refused", error.pid == parent)
    handle.close()
    del handle
    sys.exit(7)
_, status = os.waitpid(child, 0)
print("child ended", os.waitstatus_to_exitcode(status))
print("parent works", handle.client.heartbeat() > 0)
second = subprocess.run([sys.executable, "-c", sys.argv[2], str(folder)], capture_output=True)
print("still held", b"LibraryLockedError" in second.stderr)
handle.close()
"""


@needs_fork
def test_a_forked_child_is_refused_and_leaves_the_parent_its_folder(tmp_path: Path) -> None:
    printed = python(FORK, tmp_path, HOLDER)
    assert printed.stdout.splitlines() == [
        "refused True",
        "refused True",
        "child ended 7",
        "parent works True",
        "still held True",
    ], printed.stderr


@needs_fork
def test_a_forked_child_ends_normally(tmp_path: Path) -> None:
    """Destroying the inherited client in the child would wait forever for threads that only the parent has."""
    script = """
import os, sys
from pathlib import Path
from embstore.search.collection import open_client
from embstore.search.lock import LibraryHandle
client = LibraryHandle(Path(sys.argv[1]), open_client).client
child = os.fork()
if child == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(script, tmp_path).stdout == "7\n"


def test_search_is_imported_without_anything_heavy() -> None:
    script = (
        "import sys, embstore.search; "
        "print([m for m in ('chromadb', 'filelock', 'torch', 'sentence_transformers', 'tqdm') if m in sys.modules])"
    )
    printed = python(script)
    assert printed.stdout == "[]\n", printed.stderr


@pytest.mark.parametrize("package", ["chromadb", "filelock"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path: Path, package: str) -> None:
    script = f"""
import sys
sys.modules[{package!r}] = None
from embstore import SemanticSearchEngine, errors
from tests.fakes import CountingEncoder
try:
    SemanticSearchEngine(CountingEncoder(), path=sys.argv[1])
except errors.MissingExtraError as error:
    print(error)
"""
    printed = python(script, tmp_path)
    assert f'needs the package {package!r}: pip install "embstore[chroma]"' in printed.stdout, printed.stderr
