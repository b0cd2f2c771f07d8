"""The URL of a server: what libpq is told by it, and what of it may be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from embstore.errors import InvalidInputError
from embstore.stores.locations import SCHEMES

# Ours, which libpq does not know. Statements are not prepared unless asked for: behind a pooler that lends another
# connection to each transaction, a name can stand for somebody else's statement.
OWN = {"prepare_threshold": "none", "pool_size": "10"}
SECRETS = ("password", "secret", "scram_client_key", "scram_server_key")
CONNECTED_BY = {"application_name": "embstore", "keepalives_idle": "30", "keepalives_interval": "10"}


@dataclass(frozen=True)
class ServerUrl:
    """A URL that has been read.

    Attributes
    ----------
    location : str
        Without a password or any other secret; opens the same where libpq finds those by itself, as in PGPASSWORD or a
        password file.
    options : dict of str
        What libpq is told.
    prepare_threshold : int or None
        How often a statement is run before it is prepared; None: never.
    pool_size : int
        The most connections of a cache.
    """

    location: str
    options: dict[str, str] = field(repr=False)
    prepare_threshold: int | None
    pool_size: int


def read_url(url: str) -> ServerUrl:
    """Read a URL such as "postgresql://user@host:5432/database?prepare_threshold=5".

    Raises
    ------
    InvalidInputError
        It cannot be understood. The message shows nothing of it, as it could be a password.
    """
    _check_quoted(url)
    address, _, query = url.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    own = {**OWN, **{name: value for name, _, value in pairs if name in OWN}}
    others = "&".join("".join(pair) for pair in pairs if pair[0] not in OWN)
    try:
        options = {name: str(value) for name, value in conninfo_to_dict(f"{address}?{others}").items()}
    except psycopg.Error:
        raise _refused("is not understood; it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE") from None
    if not options.get("port", "").replace(",", "0").isdigit() and "port" in options:
        raise _refused("has a port that is no number")
    return ServerUrl(
        _shown(options, {name: value for name, value in own.items() if value != OWN[name]}),
        {**CONNECTED_BY, **options},
        None if own["prepare_threshold"].lower() == "none" else _whole(own, "prepare_threshold", 0),
        _whole(own, "pool_size", 1),
    )


def _check_quoted(url: str) -> None:
    """Refuse a password from which libpq would take the host."""
    address = url.partition("://")[2].partition("?")[0]
    if address.count("@") > 1:
        raise _refused("has two '@'; in a user name or a password it is written as %40")
    if "@" in address and "/" in address.partition("@")[0]:
        raise _refused("has a '/' before its '@'; in a user name or a password it is written as %2F")


def _whole(own: dict[str, str], name: str, least: int) -> int:
    if not own[name].isdecimal() or int(own[name]) < least:
        raise _refused(f"has no whole number from {least} on as its {name}")
    return int(own[name])


def _refused(why: str) -> InvalidInputError:
    return InvalidInputError(f"the URL of the server, {SCHEMES[0]}..., {why}")


def _shown(options: dict[str, str], own: dict[str, str]) -> str:
    """Put a URL together from what is no secret."""
    rest = {name: value for name, value in options.items() if not any(secret in name for secret in SECRETS)}
    user = quote(rest.pop("user", ""), safe="")
    hosts, ports = rest.pop("host", "").split(","), rest.pop("port", "").split(",")
    if any(host.startswith("/") for host in hosts):  # the folders of sockets
        rest["host"], hosts = ",".join(hosts), [""]
    if len(ports) not in (1, len(hosts)):
        ports = ports[:1]
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = [f"[{host}]" if ":" in host else quote(host, safe="") for host in hosts]
    places = [f"{place}:{port}" if port else place for place, port in zip(places, ports, strict=True)]
    database = quote(rest.pop("dbname", ""), safe="")
    query = urlencode({**rest, **own}, quote_via=quote)
    return f"{SCHEMES[0]}{user}{'@' if user else ''}{','.join(places)}/{database}{'?' if query else ''}{query}"
