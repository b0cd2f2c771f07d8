"""The command line: `embstore --help` says what it does."""

from embstore.cli.commands import main
from embstore.cli.conversion import convert  # which adds itself to the group
from embstore.cli.repairing import repair  # likewise
from embstore.cli.transferring import export, import_, merge  # likewise
from embstore.cli.upkeep import backup, compact  # likewise

__all__ = ["backup", "compact", "convert", "export", "import_", "main", "merge", "repair"]
