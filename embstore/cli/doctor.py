"""The command that looks for what is wrong with an installation and a database."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from embstore.cli import options
from embstore.cli.commands import main
from embstore.cli.group import EXIT_NO
from embstore.cli.library import database_in
from embstore.cli.output import print_json, printable
from embstore.doctor import examine

_EPILOG = """\b
What to send along with a question:
  embstore doctor my-library
"""

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
_STATE_CHARS, _SUBJECT_CHARS = 8, 28


@main.command(epilog=_EPILOG, short_help="Tell what is wrong with this installation, and in PATH.")
@click.argument("path", required=False, type=options.PlaceType(path_type=Path))
@options.as_json
def doctor(path: options.Place | None, as_json: bool) -> None:
    """Tell how this installation is, and the database in PATH where one is given.

    PATH is a library, a database file or the URL of a server. Versions and their known bugs, extras, file system, room,
    permissions, schema version and models are looked at, and of a server its pooler and timeouts; `embstore verify`
    checks the rows. A problem makes the exit code 1, a note does not.
    """
    findings = list(examine(database_in(path) if isinstance(path, Path) else path))
    has_problem = any(finding.state == "problem" for finding in findings)
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings], "ok": not has_problem})
    else:
        for finding in findings:
            state = click.style(f"{finding.state:<{_STATE_CHARS}}", fg=_COLOURS[finding.state])
            click.echo(f"{state}{printable(finding.subject):<{_SUBJECT_CHARS}}{printable(finding.what)}")
    if has_problem:
        click.get_current_context().exit(EXIT_NO)
