"""Every error of embstore: one base class, and the builtin that fits beside it.

Each message names the offender and the cure; the facts behind it are attributes of the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class EmbstoreError(Exception):
    """The base of every error that embstore raises."""

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.__dict__.update(facts)

    def __str__(self) -> str:
        # KeyError, which some of ours inherit, would print the message in quotation marks.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made anew of its `args`, the message; some of ours take other arguments.
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[EmbstoreError], args: tuple[Any, ...]) -> EmbstoreError:
    """Make an error that comes from another process; what it knows is put into it afterwards."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


# --- what the caller gave -------------------------------------------------------------------


class InvalidInputError(EmbstoreError, ValueError):
    """An argument has the right type and a value that cannot be used."""


class InvalidTypeError(EmbstoreError, TypeError):
    """An argument is of another type than the one needed."""


class DimensionError(InvalidInputError):
    """Vectors have another dimension than the model they are said to be of."""


class OutOfRangeError(InvalidInputError):
    """A vector has a value that is too large for the format in which its model is stored."""


class SourceError(InvalidInputError):
    """What vectors are to be taken from is not there, broken, or something else.

    Attributes
    ----------
    path : str
        The file or the folder.
    """

    path: str


class UnknownDocumentError(EmbstoreError, KeyError):
    """No such `doc_id` is stored for the model that was named."""


class MissingExtraError(EmbstoreError, ImportError):
    """An optional package is needed; the message holds the line that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f'{purpose} needs the package {package!r}: pip install "embstore[{extra}]"',
            package=package,
            extra=extra,
        )


# --- models and encoders --------------------------------------------------------------------


class ModelNameError(EmbstoreError, ValueError):
    """A model says no name of itself, and none was given."""


class ModelLoadError(EmbstoreError, OSError):
    """A model that was given by name could not be loaded."""


class UnknownModelError(EmbstoreError, KeyError):
    """Nothing is stored under this model name (and these settings)."""


class AmbiguousModelError(EmbstoreError, LookupError):
    """A name alone was given, and several models of that name are stored.

    Attributes
    ----------
    identities : sequence of ModelIdentity
        The models to choose from.
    """

    def __init__(self, model_name: str, identities: Sequence[object]) -> None:
        listed = "; ".join(map(str, identities))
        super().__init__(
            f"model_name {model_name!r} has {len(identities)} identities; say which by settings=: {listed}",
            model_name=model_name,
            identities=tuple(identities),
        )


class ModelExistsError(EmbstoreError, ValueError):
    """A model cannot take a name under which the same settings are stored already."""


class ModelChangedError(EmbstoreError, ValueError):
    """A model gives other vectors than the ones stored under its identity."""


class EncoderError(EmbstoreError, RuntimeError):
    """An encoder raised; its own exception is the `__cause__`."""


class EncoderOutputError(EncoderError, ValueError):
    """An encoder returned something that is not one finite float vector a text."""


class PrecisionError(EncoderOutputError):
    """An encoder returned quantised vectors, whose values depend on the rest of their batch."""


# --- the store ------------------------------------------------------------------------------


class StoreError(EmbstoreError):
    """The base of what can go wrong with the file.

    Attributes
    ----------
    path : str
        The file, or the URL of the server without its password.
    """

    path: str


class StorePathError(StoreError, OSError):
    """The path cannot hold a database: a folder, not reachable, not writable."""


class NotAFileError(StoreError, ValueError):
    """Something was asked of a store on a server that only a file has."""


class NotAStoreError(StoreError, ValueError):
    """The file is no SQLite database, or one of another application, or its schema was changed."""


class NewerStoreError(StoreError, ValueError):
    """The file was written by a newer embstore."""


class UnsafeStoreError(StoreError, ValueError):
    """The file is in a place or a mode in which SQLite here can lose or damage data."""


class ReadOnlyError(StoreError, PermissionError):
    """Something must be written, and the file can only be read."""


class StoreBusyError(StoreError, TimeoutError):
    """Another process kept the file locked for longer than `timeout_s`."""


class TooManyConnectionsError(StoreBusyError):
    """The server has as many connections as it takes, or this cache as many as it may have."""


class ServerUnreachableError(StoreError, ConnectionError):
    """The server does not answer, lets nobody in with these credentials, or went away; what was begun is undone."""


class StoreFullError(StoreError, OSError):
    """The disk or a size limit left no room; the transaction was rolled back."""


class UnconfirmedWriteError(StoreError, OSError):
    """What was to be written is in the file, but the disk has not confirmed that a power cut would leave it there."""


class StoreClosedError(StoreError, ValueError):
    """The cache was used after `close()`."""


class DamagedStoreError(StoreError, ValueError):
    """Stored bytes are not the ones that were written."""


# --- exports --------------------------------------------------------------------------------


class TargetError(EmbstoreError, OSError):
    """An export cannot be written: something is there already, or nothing can be put there.

    Attributes
    ----------
    path : str
        The file or the folder.
    """

    path: str


# --- search ---------------------------------------------------------------------------------


class SearchIndexError(EmbstoreError, RuntimeError):
    """The search index refused or failed; its own exception is the `__cause__`."""


class LibraryLockedError(EmbstoreError, BlockingIOError):
    """Another process has this library folder open."""


class TooManyRemovalsError(EmbstoreError, ValueError):
    """More documents would be removed from a collection than the call allows; none was.

    Attributes
    ----------
    n_removed, n_documents : int
        How many would be removed, and how many the collection held before the call.
    max_removed : float
        The share that was allowed.
    """


class CollectionMismatchError(EmbstoreError, ValueError):
    """A collection holds vectors of another model or length, or was not made by embstore."""
