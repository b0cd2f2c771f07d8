"""The classes of errors, which are whole wherever they arrive: from another process, or a machine of a cluster."""

from __future__ import annotations

import copy
import pickle

import pytest

from embstore import errors
from embstore.errors import EmbstoreError

MADE_OF_OTHERS = {
    errors.MissingExtraError: ("ray", "ray", "a cluster"),
    errors.AmbiguousModelError: ("model", ["identity 1", "identity 2"]),
}
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EmbstoreError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_comes_from_another_process_with_all_that_it_knows(kind: type[EmbstoreError]) -> None:
    if kind in MADE_OF_OTHERS:
        error = kind(*MADE_OF_OTHERS[kind])  # type: ignore[arg-type]
    else:
        error = kind("'a/b' is wrong; give another", path="a/b", position=3)
    for arrived in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(arrived) is kind
        assert (str(arrived), arrived.args, vars(arrived)) == (str(error), error.args, vars(error))


def test_every_error_has_the_base_class_and_a_builtin() -> None:
    plain = [kind for kind in ERRORS if not any(base.__module__ == "builtins" for base in kind.__mro__[1:-3])]
    assert plain == [EmbstoreError, errors.StoreError]
