"""What no module does: run code or SQL that is a value."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.statements import _SQL, Statements

ROOT = Path(__file__).parents[1]

# Modules that build objects out of bytes, or run them.
UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "runpy",
    "code",
}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "execfile", "system", "popen"}

# Chroma keeps one pickle, and `find_fault` reads it with an Unpickler that finds no class; see the test of it below.
PICKLE_OF_CHROMA = "embstore.search.hnsw_files"

# Chroma's own database says which folder is which collection's.
SQL_OF_CHROMA = "embstore.search.probe"

# An index that somebody has added to our table is made anew, as the schema has it: the migration has no other words
# for it. A file in which one holds an expression was refused before: tests/test_opening.py, "a partial index".
ADDED_INDEXES = "migrations.migrations._make_models_anew"


def sources() -> dict[str, str]:
    files = [*(ROOT / "embstore").rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files}
    return {names[file]: file.read_text(encoding="utf-8") for file in files}


def unsafe(name: str, source: str) -> list[str]:
    """What a module does that could run what is in a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            of = node.module if isinstance(node, ast.ImportFrom) else ""
            for module in [of] if of else [alias.name for alias in node.names]:
                if (module or "").partition(".")[0] in UNSAFE_MODULES:
                    found.append(f"{name}: import {module}")
        elif isinstance(node, ast.Call):
            is_method_of_ours = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in ("re", "self")
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in UNSAFE_CALLS and not is_method_of_ours:
                found.append(f"{name}: {called}()")
            for keyword in node.keywords:
                is_false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in ("allow_pickle", "shell", "trust_remote_code") and not is_false:
                    found.append(f"{name}: {keyword.arg}")
            if ast.unparse(node.func) in ("np.load", "numpy.load", "torch.load"):
                found.append(f"{name}: {ast.unparse(node.func)}()")
    return found


def test_nothing_of_a_file_is_run() -> None:
    found = [what for name, source in sources().items() for what in unsafe(name, source)]
    assert found == [f"{PICKLE_OF_CHROMA}: import pickle"]


def test_the_one_pickle_that_is_read_can_name_nothing() -> None:
    tree = ast.parse(sources()[PICKLE_OF_CHROMA])
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"]
    assert [use.attr for use in uses] == ["Unpickler"]
    (plain,) = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and uses[0] in node.bases]
    (find_class,) = plain.body[1:]
    assert isinstance(find_class, ast.FunctionDef)
    assert (find_class.name, [type(line) for line in find_class.body]) == ("find_class", [ast.Raise])


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from marshal import loads", "import yaml.loader", "eval(text)", "builtins.exec(text)"),
        *(
            "os.system(text)",
            "__import__(text)",
            "np.load(file, allow_pickle=flag)",
            "subprocess.run(text, shell=True)",
        ),
        *("torch.load(file)", "compile(text, '', 'exec')", "load(name, trust_remote_code=True)"),
    ],
)
def test_what_would_run_a_file_is_found(line: str) -> None:
    assert unsafe("module", line)


# Their names of functions are those of the modules for files, which the statements are followed by.
ON_SERVERS = "embstore.stores.postgres."

# Where a name of a table is filled in, which are constants.
FILLED_BY_TABLES = ["forgetting._forget_models", "summary._by_model", "verify._noted"]


def of_files() -> dict[str, str]:
    """All but the modules for servers."""
    return {name: source for name, source in sources().items() if not name.startswith(ON_SERVERS)}


def test_every_statement_is_written_down() -> None:
    assert Statements(of_files()).values() == [ADDED_INDEXES]


def quoting(source: str) -> set[str]:
    """The constants of a module that are templates of `psycopg.sql`."""
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]) for node in assigned if ast.unparse(node.value).startswith("SQL(")}


def filled_in(name: str, source: str, templates: set[str]) -> list[str]:
    """The functions in which text is filled into a statement, rather than by `psycopg.sql`, which quotes it."""
    tree = ast.parse(source)
    found = set()
    for function in ast.walk(tree):
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            if isinstance(node, ast.JoinedStr):
                beginning = node.values[0]
                is_filled = isinstance(beginning, ast.Constant) and bool(_SQL.match(str(beginning.value)))
            else:
                template, _, method = ast.unparse(node.func).rpartition(".") if isinstance(node, ast.Call) else [""] * 3
                is_constant = template.isidentifier() and template.isupper()
                is_filled = is_constant and method == "format" and template not in templates
            if is_filled and isinstance(function, ast.FunctionDef):
                found.add(f"{name}.{function.name}")
    return sorted(found)


def test_what_is_a_value_in_a_statement_for_a_server_is_quoted_by_psycopg() -> None:
    modules = {name.removeprefix(ON_SERVERS): text for name, text in sources().items() if name.startswith(ON_SERVERS)}
    templates = {template for text in modules.values() for template in quoting(text)}
    found = [function for name, text in modules.items() for function in filled_in(name, text, templates)]
    assert sorted(found) == FILLED_BY_TABLES


@pytest.mark.parametrize(
    "line", ["run(f'SELECT {name}')", "run(FIND.format(name))", "run(FIND.format(name=Literal(name)))"]
)
def test_what_is_filled_into_a_statement_is_found(line: str) -> None:
    assert filled_in("m", f"FIND = 'SELECT {{name}}'\ndef f(name):\n    {line}\n", set()) == ["m.f"]


def test_what_psycopg_fills_in_is_no_such_thing() -> None:
    source = "FIND = SQL('SELECT {}')\ndef f(name):\n    run(FIND.format(Literal(name)))\n"
    assert filled_in("m", source, quoting(source)) == []


def test_sql_stands_in_the_stores_and_the_migrations() -> None:
    assert Statements(of_files()).outside("embstore.stores", "migrations") == [SQL_OF_CHROMA]


WRITTEN = [
    "connection.execute('SELECT 1')",
    "connection.execute(FIND, (name,))",
    "connection.execute(FIND.format(places=places(keys)), keys)",
    "connection.execute(f'PRAGMA page_size = {int(value)}')",
    "connection.execute(FIND if value else 'SELECT 2')",
    "for sql in ('BEGIN', FIND):\n        connection.execute(sql)",
    "sql = FIND\n    connection.execute(sql)",
    "sql, other = ('SELECT 1', FIND)\n    connection.execute(other)",
    "[connection.execute(sql) for sql in (FIND, 'SELECT 1')]",
    "run(connection, FIND)",
]
VALUES = [
    "connection.execute(value)",
    "connection.execute('SELECT ' + value)",
    "connection.execute(f'SELECT {value}')",
    "connection.execute('SELECT %s' % value)",
    "connection.execute('SELECT {x}'.format(x=value))",
    "connection.execute(FIND.format(places=value))",
    "connection.execute(FIND.format(**value))",
    "connection.executescript(value)",
    "connection.executemany(value, [])",
    "connection.execute(FIND if value else value)",
    "for sql in value:\n        connection.execute(sql)",
    "for sql in (FIND, *value):\n        connection.execute(sql)",
    "sql = FIND\n    sql += value\n    connection.execute(sql)",
    "sql, _ = value\n    connection.execute(sql)",
    "sql, other = (FIND, value)\n    connection.execute(sql)",
    "[connection.execute(sql) for (sql,) in value]",
    "(sql := value)\n    connection.execute(sql)",
    "run(connection, value)",
    "run(connection, sql=value)",
    "CHANGED = value\n    connection.execute(CHANGED)",
]
PROGRAM = """
FIND = "SELECT {{places}}"
CHANGED = "SELECT 1"

def run(connection, sql):
    connection.execute(sql)

def test(connection, name, keys):
    value = input()
    {line}
"""


@pytest.mark.parametrize("line", WRITTEN)
def test_what_is_written_down_is_told(line: str) -> None:
    assert Statements({"m": PROGRAM.format(line=line)}).values() == []


@pytest.mark.parametrize("line", VALUES)
def test_a_value_that_is_run_is_found(line: str) -> None:
    assert Statements({"m": PROGRAM.format(line=line)}).values() == ["m.test"]
