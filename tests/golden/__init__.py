"""A file of each released schema version, and what must be read from it for good."""
