"""What a store on a server is asked for beside vectors and documents: to count, list, forget, change and check."""

from __future__ import annotations

from embstore.stores.postgres.contents import PostgresContents
from embstore.stores.postgres.conversion import PostgresConversion
from embstore.stores.postgres.forgetting import PostgresForgetting
from embstore.stores.postgres.summary import PostgresSummary
from embstore.stores.postgres.verify import PostgresVerify


class PostgresUpkeep(PostgresContents, PostgresConversion, PostgresForgetting, PostgresSummary, PostgresVerify):
    """The parts of a `Store` on a server that look after what is there; see `embstore.stores.base.Store`."""
