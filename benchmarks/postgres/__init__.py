"""Many machines: embstore on PostgreSQL beside plain psycopg, a column of pgvector, and LangChain over PostgreSQL."""
