"""What holds for every command: help with an example, JSON, exit codes, colours, completion."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from embstore import cli
from embstore.cli import commands, group, main
from embstore.errors import StoreError
from tests.cli.conftest import Run
from tests.files import change

CONTEXT = click.Context(main)
COMMANDS = main.list_commands(CONTEXT)


def command_of(name: str) -> click.Command:
    command = main.get_command(CONTEXT, name)
    assert command is not None
    return command


def documented() -> dict[int, str]:
    """The exit codes of `embstore --help`, and what they mean."""
    lines = (main.epilog or "").split("\n\n")[0].splitlines()[2:]
    told = [line.strip().partition(" ") for line in lines if line.strip()[0].isdigit()]
    return {int(code): meaning.strip() for code, _, meaning in told}


def test_the_list_of_commands_says_each_in_a_line_that_is_whole(run: Run) -> None:
    assert [line for line in run("--help").stdout.splitlines() if line.endswith("...")][1:] == []  # but the usage


def test_every_command_is_listed_and_made_where_it_is_asked_for() -> None:
    for module in pkgutil.iter_modules(cli.__path__):
        importlib.import_module(f"embstore.cli.{module.name}")
    assert sorted(main.commands) == COMMANDS
    assert main.get_command(CONTEXT, "no such command") is None
    listed = "from embstore.cli import main; import click; print(*main.list_commands(click.Context(main)))"
    loaded = "import sys; print(*(name for name in sys.modules if name.startswith('embstore.cli.')))"
    code = f"{listed}; {loaded}; print(main.get_command(click.Context(main), 'doctor').name)"
    names, modules, made = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert names.split() == COMMANDS
    assert not {"embstore.cli.doctor", "embstore.cli.embedding", "embstore.cli.upkeep"} & set(modules.split())
    assert made == "doctor"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_has_an_example_that_it_understands(run: Run, name: str) -> None:
    told = run(name, "--help").stdout
    examples = [line.strip() for line in told.splitlines() if line.strip().startswith(f"embstore {name}")]
    assert examples
    for example in examples:
        arguments = shlex.split(example.partition(" > ")[0])[2:]
        named = {option for parameter in command_of(name).params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= named


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"completion"}))
def test_each_command_that_answers_something_takes_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in command_of(name).params)


def test_the_exit_codes_are_the_documented_ones(
    run: Run, database: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: BaseException) -> Callable[[Path], Path]:
        def database_in(_: Path) -> Path:
            raise error

        return database_in

    assert documented().keys() == {0, group.EXIT_NO, group.EXIT_INPUT, group.EXIT_FAILED, 130, 141}
    run("stats", database, exit_code=0)
    run("stats", "missing.db", exit_code=2)
    run("stats", database, "--unknown", exit_code=2)
    run("nonsense", exit_code=2)
    for error, code in {StoreError("broken"): 3, OSError("broken"): 3, KeyboardInterrupt(): 130}.items():
        monkeypatch.setattr(commands.lib, "database_in", fail(error))
        run("stats", database, exit_code=code)
    monkeypatch.setattr(commands.lib, "database_in", fail(ZeroDivisionError("a bug")))
    run("stats", database, exit_code=3)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    change(here / database, "UPDATE vectors SET checksum = 0 WHERE vector_id = 2")
    run("verify", database, exit_code=1)


def test_colours_are_for_terminals_that_want_them(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variables, on_terminal, has_colours in [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ]:
        environment = {"NO_COLOR": None, "TERM": "xterm", **variables}
        for arguments in (["stats", database], ["stats", "missing.db"]):
            result = CliRunner().invoke(main, arguments, env=environment, color=on_terminal)
            assert ("\x1b[" in result.output) == has_colours, (variables, arguments)


def test_json_has_no_colours(database: str) -> None:
    for name in ("stats", "ls", "models", "verify", "doctor"):
        result = CliRunner().invoke(main, [name, database, "--json"], env={"NO_COLOR": None}, color=True)
        assert "\x1b" not in result.stdout, name
        assert isinstance(json.loads(result.stdout), dict | list), name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_what_completes_commands(run: Run, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if shell == "bash" and not shutil.which("bash"):
        pytest.skip("click asks bash for its version")
    script = run("completion", shell).stdout
    assert f"_EMBSTORE_COMPLETE={shell}_complete" in script


def test_commands_and_options_are_completed() -> None:
    for words, expected in {
        "embstore re": {"reconcile", "rename-model", "repair", "report"},
        "embstore ls --li": {"--limit"},
    }.items():
        environment = {"_EMBSTORE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        result = CliRunner().invoke(main, [], env=environment, prog_name="embstore")
        assert {line.partition(",")[2] for line in result.stdout.splitlines()} == expected


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="needs bash")
def test_bash_takes_the_script() -> None:
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    taken = subprocess.run(["bash", "-n"], input=script, text=True, check=False, capture_output=True, timeout=60)
    assert (taken.returncode, taken.stderr) == (0, "")
