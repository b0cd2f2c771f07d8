"""The store on a PostgreSQL server, for many machines at once."""
