"""The store on a PostgreSQL server, for many machines at once."""

from embstore.errors import MissingExtraError

try:
    import psycopg  # noqa: F401
except ImportError as error:
    raise MissingExtraError("psycopg", "postgres", "a cache on a server") from error
