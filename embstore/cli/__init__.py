"""The command line: `embstore --help` says what it does."""

# Each of these adds its commands to the group.
from embstore.cli import (
    completion,
    conversion,
    doctor,
    embedding,
    indexing,
    models,
    pictures,
    repairing,
    showing,
    transferring,
    upkeep,
)
from embstore.cli.commands import main

__all__ = [
    "completion",
    "conversion",
    "doctor",
    "embedding",
    "indexing",
    "main",
    "models",
    "pictures",
    "repairing",
    "showing",
    "transferring",
    "upkeep",
]
