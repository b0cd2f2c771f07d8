"""The command that makes a shell complete commands, options and paths."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from embstore.cli.commands import main

_VARIABLE = "_EMBSTORE_COMPLETE"  # click's name for it, of the program's

_EPILOG = """\b
Once and for all, in ~/.bashrc, in ~/.zshrc, and for fish in its own folder:
  eval "$(embstore completion bash)"
  eval "$(embstore completion zsh)"
  embstore completion fish > ~/.config/fish/completions/embstore.fish
"""


@main.command(epilog=_EPILOG, short_help="Print what makes a shell complete commands and paths.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what SHELL is to run to complete embstore's commands, options and paths."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this click completes nothing in {shell}")
    click.echo(kind(main, {}, "embstore", _VARIABLE).source())
