"""What every store promises, held on the one in SQLite and the one in PostgreSQL alike."""
