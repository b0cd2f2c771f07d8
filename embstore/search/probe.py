"""Looking, in a process of its own, at what an unclean end has left of Chroma's vector indexes.

A torn one makes Chroma refuse the documents too, or ends the process that loads it; so that is not the user's. Without
it the documents can be read, and `repair` builds another one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embstore.search.beside import DAMAGED, MARK_KEY, REBUILT, beside
from embstore.search.collection import MODEL_NAME_KEY, get_collection, import_chromadb, open_client
from embstore.search.hnsw_files import find_fault
from embstore.search.reach import unreachable_ids

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

BEGUN, SOUND, LOSSY, FAILED = "begun", "sound", "lossy", "failed"

_CHILD = "from embstore.search.probe import look; look()"
_SAID = '{"name":'  # others may print too
_LIMIT_S = 600.0  # some damage makes loading go on for ever
_ASIDE = ".embstore-aside"

# The folders of vector indexes are named by what only Chroma's database knows.
_SEGMENTS = """
    SELECT collections.name, segments.id, marks.str_value
    FROM collections
    JOIN databases ON databases.id = collections.database_id
    JOIN segments ON segments.collection = collections.id
    JOIN collection_metadata ON collection_metadata.collection_id = collections.id
    LEFT JOIN collection_metadata AS marks ON marks.collection_id = collections.id AND marks.key = ?
    WHERE databases.name = 'default_database'
      AND databases.tenant_id = 'default_tenant'
      AND segments.scope = 'VECTOR'
      AND collection_metadata.key = ?
"""

_logger = logging.getLogger("embstore.search")


@dataclass(frozen=True)
class Look:
    """What was seen of a collection.

    Attributes
    ----------
    name : str
    segment : str
        The folder of its vector index, which need not be there yet.
    state : str
        "sound", "lossy" where searches miss records, "failed" where Chroma raised or would do worse, or "begun".
    reason : str
        What is wrong, or what Chroma said.
    of : str
        The collection whose place it is to take, where it was built for that.
    """

    name: str
    segment: str
    state: str
    reason: str = ""
    of: str = ""


def set_aside_failed(folder: Path, failed: frozenset[str] = frozenset()) -> set[str] | None:
    """Find the collections of embstore's that need mending, and remove vector indexes that Chroma failed with.

    Parameters
    ----------
    folder : Path
        A library folder that no process has open.
    failed : frozenset of str
        Collections in which Chroma failed before: the first call of a process may be the only one that tells.

    Returns
    -------
    set of str or None
        Names of collections; None where no process could be started to look.
    """
    for left in folder.glob(f"*{_ASIDE}"):  # by a process that was killed here
        shutil.rmtree(left, ignore_errors=True)
    looks = _look_at(folder)
    if looks is None:
        return None
    for look in looks.values():
        if look.state == FAILED or look.name in failed:
            _set_aside(folder, look)
    return {look.of or look.name for look in looks.values() if look.state != SOUND or look.name in failed}


def _set_aside(folder: Path, failed: Look) -> None:
    """Remove a vector index, but only where Chroma can read the documents then."""
    segment, aside = folder / failed.segment, folder / (failed.segment + _ASIDE)
    reason = failed.reason or "Chroma failed with it before"
    if not segment.is_dir():
        return
    segment.rename(aside)
    looks = _look_at(folder, only=failed.name) or {}
    if failed.name in looks and looks[failed.name].state != FAILED:
        shutil.rmtree(aside, ignore_errors=True)
        _logger.warning("collection %r: its vector index is damaged and was removed (%s)", failed.name, reason)
        return
    shutil.rmtree(segment, ignore_errors=True)
    aside.rename(segment)
    _logger.warning("collection %r cannot be read (%s)", failed.name, reason)


def _look_at(folder: Path, only: str | None = None) -> dict[str, Look] | None:
    """Look at one or all of the collections; after one that ended the process, another process goes on."""
    looks: dict[str, Look] = {}
    while True:
        output = _run_child({"folder": str(folder), "only": only, "skipped": list(looks)})
        if output is None:
            return None
        said = [Look(**json.loads(line)) for line in output.splitlines() if line.startswith(_SAID)]
        looks |= {look.name: look for look in said}
        died = [look for look in looks.values() if look.state == BEGUN]
        if not died:
            return looks
        looks |= {look.name: replace(look, state=FAILED, reason="the process that loaded it ended") for look in died}


def _run_child(task: dict[str, Any]) -> str | None:
    """Give what a child process prints of a task, also where it dies; None where it cannot even begin."""
    if getattr(sys, "frozen", False) or not sys.executable:  # this would start the application once more
        return None
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=json.dumps(task).encode(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode()
    except OSError:
        return None
    return child.stdout.decode() if child.stdout or not child.returncode else None


def look() -> None:
    """Be the child: read a task from stdin, and print a line before and after each look."""
    task = json.load(sys.stdin)
    folder = Path(task["folder"])
    begun = _begin(folder)
    with closing(open_client(folder)) as client:
        for it in begun:
            if it.name in task["skipped"] or task["only"] not in (None, it.name) or _is_passed_over(it):
                continue
            fault = find_fault(folder / it.segment)
            if fault is not None:
                _say(replace(it, state=FAILED, reason=fault))
                continue
            _say(it)
            state, reason = _state(get_collection(client, it.name))
            _say(replace(it, state=state, reason=reason))


def _begin(folder: Path) -> list[Look]:
    """Read which folder belongs to which collection. Nobody else in this process may have the file open."""
    file = folder / "chroma.sqlite3"
    if not file.exists():
        return []
    # Not read-only: after a crash SQLite must roll back what was not committed.
    with closing(sqlite3.connect(file)) as connection, suppress(sqlite3.DatabaseError):  # whoever opens it is told
        rows = connection.execute(_SEGMENTS, [MARK_KEY, MODEL_NAME_KEY])
        return [Look(name, segment, BEGUN, of=mark or "") for name, segment, mark in rows]
    return []


def _is_passed_over(look: Look) -> bool:
    """Tell whether a collection is never searched: kept aside, or built beside another one and not yet complete."""
    is_beside = bool(look.of) and look.name not in (look.of, beside(look.of, REBUILT))
    return is_beside or look.name.endswith(DAMAGED)


def _state(collection: Collection) -> tuple[str, str]:
    """Judge a collection by one call, or by none more than it takes to fail: the next may write the damage down."""
    try:
        return (LOSSY if unreachable_ids(collection) else SOUND), ""
    except import_chromadb().errors.InternalError as error:
        return FAILED, str(error)


def _say(look: Look) -> None:
    sys.stdout.write(json.dumps(asdict(look)) + "\n")
    sys.stdout.flush()
