"""The command line: `embstore --help` says what it does."""

from embstore.cli.commands import main

__all__ = ["main"]
