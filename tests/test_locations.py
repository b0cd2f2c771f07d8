"""Where a store is: a file, or a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from embstore import EmbeddingCache, NotAFileError
from embstore.stores.locations import absolute, file_of, folder_of, is_url, name_of, without_secrets

URL = "postgresql://somebody@db.example:5432/vectors"


def test_only_the_url_of_a_server_is_one() -> None:
    assert [is_url(place) for place in (URL, "postgres://h/d", "cache.db", Path("postgresql:/h/d"), None)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_file_has_a_location_and_a_path(tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        assert (cache.location, cache.path) == (str(tmp_path / "cache.db"), tmp_path / "cache.db")
        assert repr(cache) == f"EmbeddingCache({cache.location!r})"


def test_a_server_has_no_file() -> None:
    with pytest.raises(NotAFileError, match="on a server"):
        file_of(URL)


def test_a_location_means_the_same_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (absolute("cache.db"), absolute(URL)) == (str(tmp_path / "cache.db"), URL)
    assert (folder_of("a/cache.db"), folder_of(URL)) == (tmp_path / "a", tmp_path)


def test_what_is_kept_of_a_location_has_no_password() -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    assert without_secrets("postgresql://u:secret@h/d?pool_size=3") == "postgresql://u@h/d?pool_size=3"
    assert without_secrets("a/cache.db") == "a/cache.db"
    assert without_secrets(Path("a", "cache.db")) == str(Path("a", "cache.db"))


def test_a_database_on_a_server_has_a_name() -> None:
    assert (name_of(URL), name_of("postgresql://h/d?x=/y"), name_of("a/cache.db")) == ("vectors", "d", "cache.db")
