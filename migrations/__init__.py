"""The schema of a cache file, as sqlite-utils migrations."""
