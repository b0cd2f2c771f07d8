"""What a user gets from the wheel, and what an import costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import embstore
from embstore import EmbeddingCache
from tests.fakes import CountingEncoder

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "transformers", "sentence_transformers", "chromadb", "pandas", "ray"}

USE_IT = """
import sys
from pathlib import Path

import numpy as np

import embstore
from embstore import EmbeddingCache


class Lengths:
    model_name = "lengths"

    def encode(self, texts):
        return np.array([[len(text), 1.0] for text in texts])


assert Path(embstore.__file__).is_relative_to(sys.argv[1]), embstore.__file__
with EmbeddingCache("embeddings.db") as cache:
    written = cache.embed(["one", "three"], model=Lengths())
with EmbeddingCache("embeddings.db") as cache:
    read = cache.embed(["three", "one"], model=Lengths())
    assert (read == written[::-1]).all(), read
    assert cache.verify() == []
"""

LOADED = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def run_python(*arguments: str, cwd: Path, path: Path) -> str:
    """Run a Python that finds `embstore` under `path` only, and give its output."""
    installed = sysconfig.get_path("purelib")
    # -S leaves out site-packages with its .pth files, through which an editable install would come first.
    done = subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), installed])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that nothing is left in the working tree."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("embstore", "migrations"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Package would be ignored" not in done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the sources, built from a copy of them."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("sdist")
    for name in ("embstore", "migrations"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.tar.gz")
    return built


def test_the_sources_come_with_the_changelog_and_what_is_said_of_security(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "SECURITY.md", "LICENSE", "README.md", "embstore/cache.py", "embstore/py.typed"} <= names


@pytest.mark.parametrize(
    ("checker", "arguments"), [("twine", ["check", "--strict"]), ("check_wheel_contents", ["--no-config"])]
)
def test_an_index_of_packages_would_take_what_is_built(
    checker: str, arguments: list[str], wheel: Path, sdist: Path
) -> None:
    pytest.importorskip(checker, reason=f"needs {checker.replace('_', '-')}, of the extra dev")
    built = [wheel] if checker == "check_wheel_contents" else [wheel, sdist]
    command = [sys.executable, "-m", checker, *arguments, *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in, and nothing else."""
    folder = tmp_path_factory.mktemp("target")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel],
        check=True,
        timeout=120,
    )
    return folder


def test_the_wheel_has_every_module_the_migrations_the_parts_of_pages_and_the_type_marker(wheel: Path) -> None:
    files = {file.relative_to(ROOT).as_posix() for file in (ROOT / "embstore").rglob("*") if file.is_file()}
    wanted = {name for name in files if name.endswith((".py", ".html", ".css", ".js", "/py.typed"))}
    written = [file for file in (ROOT / "migrations").rglob("*") if file.suffix in (".py", ".sql")]
    migrations = {f"embstore/_migrations/{file.relative_to(ROOT / 'migrations').as_posix()}" for file in written}
    assert "embstore/_migrations/migrations.py" in migrations
    assert "embstore/py.typed" in wanted
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert shipped == wanted | migrations


def test_the_wheel_works_away_from_the_sources(target: Path, tmp_path: Path) -> None:
    run_python("-c", USE_IT, str(target), cwd=tmp_path, path=target)
    assert [file.name for file in tmp_path.iterdir()] == ["embeddings.db"]


def test_the_command_line_tells_the_version_of_the_wheel(target: Path, wheel: Path, tmp_path: Path) -> None:
    told = run_python("-c", "from embstore.cli import main; main()", "--version", cwd=tmp_path, path=target)
    assert told == f"embstore, version {wheel.name.split('-')[1]}\n"


def test_every_public_name_is_loaded_from_where_it_is_said_to_be() -> None:
    assert [getattr(embstore, name).__name__ for name in embstore.__all__] == embstore.__all__
    with pytest.raises(AttributeError, match="'embstore' has no attribute 'nothing'"):
        embstore.nothing  # noqa: B018


def test_importing_embstore_loads_nothing_heavy(target: Path, tmp_path: Path) -> None:
    loaded = run_python("-c", f"import embstore; {LOADED}", cwd=tmp_path, path=target).split()
    assert "embstore" in loaded
    assert not (HEAVY | {"sqlite_utils"}).intersection(loaded)


@pytest.mark.parametrize("command", [["stats"], ["ls"], ["verify"], ["--help"]], ids=" ".join)
def test_commands_that_only_read_the_file_load_nothing_heavy(
    command: list[str], target: Path, tmp_path: Path, encoder: CountingEncoder
) -> None:
    with EmbeddingCache(tmp_path / "embeddings.db") as cache:
        cache.get("a", "text", encoder)
    program = f"import atexit; atexit.register(lambda: exec({LOADED!r})); from embstore.cli import main; main()"
    arguments = command if command == ["--help"] else [*command, "embeddings.db"]
    output = run_python("-c", program, *arguments, cwd=tmp_path, path=target)
    assert not HEAVY.intersection(output.splitlines()[-1].split())
