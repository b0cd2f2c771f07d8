"""The schema of a PostgreSQL store: numbered files of SQL, each applied once and in order."""
