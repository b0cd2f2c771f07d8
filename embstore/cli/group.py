"""How a command ends: one line on stderr for an error, and an exit code that scripts can rely on."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NoReturn

import click

from embstore.errors import (
    AmbiguousModelError,
    EmbstoreError,
    InvalidInputError,
    InvalidTypeError,
    ModelExistsError,
    ModelNameError,
    TooManyRemovalsError,
    UnknownDocumentError,
    UnknownModelError,
)

EXIT_NO = 1
EXIT_INPUT = 2
EXIT_FAILED = 3
EXIT_INTERRUPTED = 130  # 128 + the signal's number, as a shell says it
EXIT_BROKEN_PIPE = 141

_INPUT_ERRORS = (
    AmbiguousModelError,
    InvalidInputError,
    InvalidTypeError,
    ModelExistsError,
    ModelNameError,
    TooManyRemovalsError,
    UnknownDocumentError,
    UnknownModelError,
)


class CommandGroup(click.Group):
    """A click group that turns whatever its commands raise into a message and an exit code.

    Parameters
    ----------
    later : mapping of str to str
        Commands that are made where they are asked for, each by importing a module that adds it to this group.
    """

    def __init__(self, *args: Any, later: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._later = dict(later or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted({*self.commands, *self._later})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give a command of that name."""
        if cmd_name not in self.commands and cmd_name in self._later:
            import_module(self._later[cmd_name])
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. A closed pipe is met here, before click turns it into exit code 1, which is a "no"."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # What is still buffered would be written, and fail, once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from None

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command line and exit. See `click.BaseCommand.main`."""
        if hasattr(sys.stdout, "reconfigure"):  # a document may hold what the terminal's encoding does not
            sys.stdout.reconfigure(errors="backslashreplace")
        kwargs["standalone_mode"] = False
        kwargs.setdefault("color", colours())
        try:
            code = super().main(*args, **kwargs) or 0
        except click.Abort as error:
            code = _report(_with_notes("interrupted", error.__cause__), EXIT_INTERRUPTED)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            hint = f" (see {context.command_path} --help)" if context else ""
            code = _report(error.format_message() + hint, error.exit_code)
        except EmbstoreError as error:
            is_input = isinstance(error, _INPUT_ERRORS)
            code = _report(_with_notes(str(error), error), EXIT_INPUT if is_input else EXIT_FAILED)
        except OSError as error:
            code = _report(str(error), EXIT_FAILED)
        except Exception:
            # A bug: its traceback is wanted, Python's exit code 1 is not, which would say "no" to a script.
            traceback.print_exc()
            code = EXIT_FAILED
        sys.exit(code)


def colours() -> bool | None:
    """Tell whether output may have colours: None where it may on a terminal (https://no-color.org)."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _with_notes(message: str, error: BaseException | None) -> str:
    """Add what is noted on an error: how far a command came, say."""
    return "; ".join([message, *getattr(error, "__notes__", [])])


def _report(message: str, code: int) -> int:
    told = f"embstore: {click.style('error', fg='red')}: {' '.join(message.splitlines())}"
    click.echo(told, err=True, color=colours())
    return code
