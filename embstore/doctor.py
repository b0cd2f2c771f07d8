"""What there is to know of an installation and of a cache file before something goes wrong with them."""

from __future__ import annotations

import platform
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from embstore.errors import EmbstoreError
from embstore.stores.condition import Condition, read_condition
from embstore.stores.filesystem import mounted_type, network_filesystem
from embstore.stores.opening import MINIMUM_SQLITE, PAGE_SIZE, wal_is_fixed
from embstore.stores.schema import SCHEMA_VERSION
from embstore.stores.sqlite_errors import sqlite3

State = Literal["ok", "note", "problem"]

LEAST_FREE_BYTES = 100_000_000
_NOT_FOR_USERS = {"bench", "dev", "docs", "fuzz"}
# Of a line such as `chromadb<2,>=1.5.9; extra == "chroma"`: the package, its versions, the extra.
_OF_EXTRA = re.compile(r"""([\w.-]+)(?:\[[^]]*\])?\s*([^;]*);.*\bextra == ["']([\w-]+)["']""")


@dataclass(frozen=True)
class Finding:
    """Something that was looked at.

    Attributes
    ----------
    subject : str
        What was looked at, in a word or two.
    what : str
        How it is, and where that is no good, the cure.
    state : "ok", "note" or "problem"
    """

    subject: str
    what: str
    state: State = "ok"


def examine(database: Path | str | None = None) -> Iterator[Finding]:
    """Look at the installation, and at a cache file; nothing is changed, and no row is read.

    What a crash left half written in the file is rolled back, as by everything that opens it.

    Parameters
    ----------
    database : Path or str, optional
        A file that is there, or the URL of a server.

    Yields
    ------
    Finding
        A file that cannot be used is a "problem", not an error.
    """
    yield Finding("embstore", f"{_version_of('embstore') or 'not installed'}, schema version {SCHEMA_VERSION}")
    yield Finding("Python", f"{platform.python_version()} on {platform.platform()}")
    yield _sqlite()
    yield from _extras()
    if database is None:
        return
    if isinstance(database, str):
        yield from _server(database)
        return
    yield _file_system(database)
    try:
        condition = read_condition(database)
    except EmbstoreError as error:
        yield Finding("file", str(error), "problem")
        return
    yield from _file(condition)
    yield _room(condition)
    if condition.schema_version == SCHEMA_VERSION:
        yield from _models(database)


def _server(url: str) -> Iterator[Finding]:
    try:
        from embstore.server_findings import server_findings
        from embstore.stores.postgres.condition import read_condition

        condition = read_condition(url)
    except EmbstoreError as error:
        yield Finding("server", str(error), "problem")
        return
    yield from server_findings(condition)
    if condition.schema_version:
        yield from _models(url)


def _sqlite() -> Finding:
    version = f"{sqlite3.sqlite_version} of {sqlite3.__name__}"
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        return Finding("SQLite", f"{version} is too old: pip install pysqlite3-binary", "problem")
    if not wal_is_fixed(sqlite3.sqlite_version_info):
        return Finding(
            "SQLite",
            f"{version} has the WAL-reset bug (https://sqlite.org/wal.html#walresetbug), which embstore keeps clear "
            f"of: never put the file in WAL mode",
            "note",
        )
    return Finding("SQLite", f"{version}, without a known bug")


def _extras() -> Iterator[Finding]:
    """Tell of each extra which of its packages are installed, by what the package says of itself."""
    packages_of: dict[str, list[tuple[str, str]]] = {}
    for line in _requirements():
        found = _OF_EXTRA.match(line)
        if found and found[1] != "embstore" and found[3] not in _NOT_FOR_USERS:
            packages_of.setdefault(found[3], []).append((found[1], found[2].strip()))
    for extra, packages in sorted(packages_of.items()):
        versions = {name: _version_of(name) for name, _ in packages}
        missing = [name for name, version in versions.items() if version is None]
        outside = [
            f"{name} {versions[name]} is not {wanted}" for name, wanted in packages if not _fits(versions[name], wanted)
        ]
        told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        if outside:
            yield Finding(f"extra {extra}", f'{"; ".join(outside)}: pip install "embstore[{extra}]"', "problem")
        elif missing:
            cure = f'{", ".join(missing)} not installed: pip install "embstore[{extra}]"'
            yield Finding(f"extra {extra}", f"{told}; {cure}" if told else cure, "note")
        else:
            yield Finding(f"extra {extra}", told)


def _requirements() -> list[str]:
    try:
        return metadata.requires("embstore") or []
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return []


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str | None, wanted: str) -> bool:
    """Tell whether a version is among those wanted, as far as that can be told."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
        from packaging.version import InvalidVersion
    except ImportError:
        return True
    try:
        return version is None or SpecifierSet(wanted, prereleases=True).contains(version)
    except (InvalidSpecifier, InvalidVersion):
        return True


def _file_system(database: Path) -> Finding:
    network = network_filesystem(database.absolute())
    if network is not None:
        return Finding(
            "file system",
            f"{network} is a network file system, whose locks cannot be trusted: two machines that write at once can "
            f"damage the file; use a local disk",
            "problem",
        )
    return Finding("file system", mounted_type(database.absolute()) or "local, as far as can be told")


def _file(condition: Condition) -> Iterator[Finding]:
    yield Finding("file", f"{condition.path}: {condition.size_bytes / 1e6:,.2f} MB")
    if condition.schema_version == SCHEMA_VERSION:
        yield Finding("schema version", str(SCHEMA_VERSION))
    else:
        yield Finding(
            "schema version",
            f"{condition.schema_version}: it becomes {SCHEMA_VERSION} by `embstore migrate`, or when it is next opened",
            "note",
        )
    if condition.page_size == PAGE_SIZE:
        yield Finding("page size", f"{PAGE_SIZE} bytes")
    else:
        told = f"{condition.page_size} bytes, not {PAGE_SIZE}, which is faster: `embstore compact` writes it so"
        yield Finding("page size", told, "note")
    if condition.journal_mode == "wal":
        yield Finding("journal mode", "wal, somebody else's choice; with nobody using it, set it to delete", "note")
    else:
        yield Finding("journal mode", condition.journal_mode)
    yield _permissions(condition)


def _permissions(condition: Condition) -> Finding:
    mode = f"{stat.filemode(condition.mode)}"
    if not condition.is_writable:
        return Finding("permissions", f"{mode}: it, or its folder, can only be read by this user", "note")
    if sys.platform != "win32" and condition.mode & stat.S_IWOTH:
        return Finding("permissions", f"{mode}: anybody can change it; chmod o-w {condition.path}", "problem")
    return Finding("permissions", mode)


def _room(condition: Condition) -> Finding:
    try:
        free_bytes = shutil.disk_usage(Path(condition.path).parent).free
    except OSError as error:
        return Finding("free disk", f"cannot be told: {error.strerror}", "note")
    told = f"{free_bytes / 1e6:,.0f} MB"
    if free_bytes < LEAST_FREE_BYTES:
        return Finding("free disk", f"{told}: free some before a write fails", "problem")
    if free_bytes < condition.size_bytes:
        return Finding("free disk", f"{told}, less than the file has: no room to compact or to migrate it", "note")
    return Finding("free disk", told)


def _models(database: Path | str) -> Iterator[Finding]:
    from embstore.stored import StoredEmbeddings

    try:
        with StoredEmbeddings(database, allow_network_filesystem=True) as stored:
            models = stored.models()
    except EmbstoreError as error:
        yield Finding("models", str(error), "problem")
        return
    for model in models:
        settings = "".join(f", {key}={value}" for key, value in model.settings.items())
        told = f"{model.model_name}{settings}: {model.n_vectors:,} vectors of {model.dim} values as {model.dtype}"
        if model.has_canary:
            yield Finding("model", told)
        else:
            yield Finding("model", f"{told}; no model was compared with it yet, the first that is used will be", "note")
