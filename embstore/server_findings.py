"""What `embstore doctor` tells of a server."""

from __future__ import annotations

from collections.abc import Iterator

from embstore.doctor import Finding
from embstore.stores.postgres.condition import ServerCondition
from embstore.stores.postgres.schema import SCHEMA_VERSION


def server_findings(condition: ServerCondition) -> Iterator[Finding]:
    """Tell how a server is, and where that is no good, the cure."""
    yield Finding("server", condition.version)
    size = f"{condition.size_bytes / 1e6:,.2f} MB"
    yield Finding("tables", f"{condition.location}: {size} in schema {condition.schema!r}")
    yield _schema_version(condition)
    yield _permissions(condition)
    yield Finding("isolation", f"{condition.isolation} by default; each transaction of embstore says its own")
    if condition.has_pooler:
        yield Finding("pooler", "there is one; leave prepare_threshold=none, or see that it keeps prepared statements")
    else:
        yield Finding("pooler", "none, as far as can be told")
    if condition.synchronous_commit == "off":
        told = "off: a crash of the server can undo the last writes, which are then encoded again; set it to on"
        yield Finding("synchronous_commit", told, "note")
    else:
        yield Finding("synchronous_commit", condition.synchronous_commit)
    if condition.statement_timeout == "0":
        yield Finding("statement_timeout", "none")
    else:
        told = f"{condition.statement_timeout}: a matrix, a verify or a prune that takes longer is cancelled"
        yield Finding("statement_timeout", told, "note")


def _schema_version(condition: ServerCondition) -> Finding:
    version = condition.schema_version
    if version == SCHEMA_VERSION:
        return Finding("schema version", str(version))
    told = "there are no tables" if not version else f"{version}, and {SCHEMA_VERSION} is that of this embstore"
    if condition.can_create:
        return Finding("schema version", f"{told}: `embstore migrate` makes them, or whoever opens it first", "note")
    return Finding("schema version", f"{told}, and this role cannot make them: let their owner migrate", "problem")


def _permissions(condition: ServerCondition) -> Finding:
    if condition.is_standby:
        return Finding("permissions", f"{condition.role} can read: this is a standby", "note")
    if condition.can_create:
        return Finding("permissions", f"{condition.role} can read, write and migrate")
    if condition.can_write:
        return Finding("permissions", f"{condition.role} can read and write, and not migrate")
    return Finding("permissions", f"{condition.role} can read: hits are answered, and misses are errors", "note")
