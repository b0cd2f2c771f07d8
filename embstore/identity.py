"""Who made a vector, and of which text: model identity and content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Literal, TypeGuard, cast

from embstore.errors import InvalidInputError, InvalidTypeError

Role = Literal["document", "query"]
Dtype = Literal["float32", "float16"]
"""The format in which the vectors of a model are stored; what is given back is float32."""
Setting = str | int | float | bool | None

ROLES: tuple[Role, ...] = ("document", "query")
DTYPES: tuple[Dtype, ...] = ("float32", "float16")
MAX_NAME_CHARS = 2**20
MAX_SETTINGS_CHARS = 2**16


def content_hash(text: str) -> bytes:
    """Give the key of a text: the SHA-256 of its UTF-8 bytes.

    The same as ``printf %s TEXT | sha256sum``. A lone surrogate, which UTF-8 has no form for, is
    hashed as the three bytes that Python's ``surrogatepass`` gives it.

    Parameters
    ----------
    text : str
        Any text, the empty one too. It is not normalised: "é" and "e" + accent differ.

    Returns
    -------
    bytes of length 32

    Raises
    ------
    InvalidTypeError
        `text` is not a str.
    """
    if not isinstance(text, str):
        raise InvalidTypeError(f"text is {type(text).__name__}, not str: {text!r:.80}", value=text)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).digest()


def check_role(role: Role) -> Role:
    """Return `role` where it is one, raise InvalidInputError otherwise."""
    if role not in ROLES:
        raise InvalidInputError(f"role {role!r} is not one of {', '.join(map(repr, ROLES))}", role=role)
    return role


def check_dtype(dtype: Dtype) -> Dtype:
    """Return `dtype` where it is a format that vectors are stored in.

    Raises
    ------
    InvalidTypeError
        It is not a str: numpy's own dtypes are equal to their names, and would be stored as what they are.
    InvalidInputError
        It is another one.
    """
    if not isinstance(dtype, str):
        raise InvalidTypeError(f"dtype is {type(dtype).__name__}, not str: {dtype!r:.80}; give 'float32' or 'float16'")
    if dtype not in DTYPES:
        raise InvalidInputError(f"dtype {dtype!r:.80} is not one of {', '.join(map(repr, DTYPES))}", dtype=dtype)
    return dtype


@dataclass(frozen=True)
class ModelIdentity:
    """A model name and everything else that changes the model's vectors.

    Two identities share no vector. Equality is that of the name and of the canonical JSON of the
    settings (sorted keys, no spaces), in which 1, 1.0 and true are three different values.

    Two settings are embstore's own and never an encoder's: "role", which is "query" or is left out, and "dtype", the
    format in which the vectors are stored, which is "float16" or is left out.

    Parameters
    ----------
    model_name : str
        A non-empty name.
    settings_json : str
        The settings as canonical JSON. Use `ModelIdentity.of` to give them as a mapping.

    Raises
    ------
    InvalidInputError
        The name is empty, the settings are too long or not canonical JSON, or "dtype" in them is not "float16".
    """

    model_name: str
    settings_json: str = "{}"

    def __post_init__(self) -> None:
        check_model_name(self.model_name)
        if isinstance(self.settings_json, str) and len(self.settings_json) > MAX_SETTINGS_CHARS:
            raise InvalidInputError(
                f"the settings of model {self.model_name!r:.80} are {len(self.settings_json)} characters of "
                f"JSON, more than {MAX_SETTINGS_CHARS}; give the digest of what is long",
                model_name=self.model_name,
            )
        if not isinstance(self.settings_json, str) or not _is_canonical(self.settings_json):
            raise InvalidInputError(
                f"settings_json {self.settings_json!r:.80} is not the canonical JSON of a mapping; "
                f"use ModelIdentity.of(model_name, settings)",
                settings_json=self.settings_json,
            )
        if _dtype_of(self.settings_json) is None:
            raise _reserved("dtype", self.settings["dtype"], DTYPES)

    @classmethod
    def of(
        cls,
        model_name: str,
        settings: Mapping[str, Setting] | None = None,
        *,
        role: Role = "document",
    ) -> ModelIdentity:
        """Make an identity of a name and a mapping of settings.

        Parameters
        ----------
        model_name : str
            A non-empty name.
        settings : mapping of str to str, int, float, bool or None, optional
            Whatever changes the vectors: revision, prompt, truncation, precision, ...
            "dtype": "float16" among them means the model as it is stored in that format, "float32" is left out.
        role : "document" or "query"
            "query" is written into the settings, "document" never is.

        Returns
        -------
        ModelIdentity

        Raises
        ------
        InvalidInputError
            The name is empty, a setting is not a JSON scalar, the setting "role" is no role, or "dtype" no format.
        """
        if not settings and type(settings) in (dict, NoneType) and type(model_name) is str and role == "document":
            return _without_settings(model_name)
        if not isinstance(settings, Mapping | None):
            raise InvalidTypeError(f"settings is {type(settings).__name__}, not a dict: {settings!r:.80}")
        settings = dict(settings or {})
        given = settings.pop("role", "document")
        if given not in ROLES:
            raise _reserved("role", given, ROLES)
        if "query" in (given, role):
            settings["role"] = "query"
        if settings.get("dtype") == "float32":
            del settings["dtype"]
        return cls(model_name, canonical_json(settings))

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings as a new dict."""
        return cast(dict[str, Setting], json.loads(self.settings_json))

    @property
    def dtype(self) -> Dtype:
        """The format in which its vectors are stored."""
        return _dtype_of(self.settings_json) or "float32"

    @property
    def digest(self) -> bytes:
        """What stands for it where a key must be short: 32 bytes, whatever the length of its settings."""
        return hashlib.sha256(json.dumps([self.model_name, self.settings_json]).encode("ascii")).digest()

    def renamed(self, model_name: str) -> ModelIdentity:
        """Return the same settings under another name."""
        return ModelIdentity(model_name, self.settings_json)

    def stored_as(self, dtype: Dtype) -> ModelIdentity:
        """Return the same model as it is called where its vectors are stored in a format."""
        if dtype == self.dtype:
            return self
        return ModelIdentity.of(self.model_name, {**self.settings, "dtype": dtype})

    def __str__(self) -> str:
        return self.model_name if self.settings_json == "{}" else f"{self.model_name} {self.settings_json}"


@lru_cache(maxsize=1024)
def _without_settings(model_name: str) -> ModelIdentity:
    return ModelIdentity(model_name)


def _reserved(key: str, value: object, allowed: tuple[str, ...]) -> InvalidInputError:
    return InvalidInputError(
        f"the setting {key!r} is embstore's own, {' or '.join(map(repr, allowed))}, not {value!r:.80}; rename yours",
        key=key,
        value=value,
    )


@lru_cache(maxsize=1024)
def _is_canonical(settings_json: str) -> bool:
    try:
        settings = json.loads(settings_json)
        return isinstance(settings, dict) and canonical_json(settings) == settings_json
    except (ValueError, RecursionError):
        return False


@lru_cache(maxsize=1024)
def _dtype_of(settings_json: str) -> Dtype | None:
    """Read the format off canonical settings; None where they name none that is written there."""
    settings = json.loads(settings_json)
    if "dtype" not in settings:
        return "float32"
    return "float16" if settings["dtype"] == "float16" else None


def check_model_name(model_name: object) -> str:
    """Return `model_name` where it is a usable name.

    Raises
    ------
    InvalidTypeError
        It is not a str.
    InvalidInputError
        It is empty or too long, or holds a lone surrogate, which no database can store.
    """
    if not isinstance(model_name, str):
        raise InvalidTypeError(f"model_name is {type(model_name).__name__}, not str: {model_name!r:.80}")
    if not model_name:
        raise InvalidInputError("model_name is empty; give the model a name")
    check_storable(model_name, "model_name")
    check_name_length(model_name, "model_name")
    return model_name


def is_storable(value: object) -> TypeGuard[str]:
    """Tell whether a value is a str that a database can hold: one without lone surrogates."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_storable(text: str, what: str) -> None:
    """Raise InvalidInputError where `text` holds a lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} {text!r:.80} holds a lone surrogate at position {error.start}, which cannot be stored; "
            f"replace it, for example with text.encode('utf-8', 'replace').decode()",
            value=text,
        ) from None


def check_name_length(text: str, what: str) -> None:
    """Raise InvalidInputError where a name or an id is longer than any that is stored."""
    if len(text) > MAX_NAME_CHARS:
        raise InvalidInputError(
            f"{what} {text!r:.80} has {len(text)} characters, more than {MAX_NAME_CHARS}; give a digest of it",
            value=text,
        )


def canonical_json(settings: Mapping[str, Setting]) -> str:
    """Write settings as the one JSON text that stands for them: sorted keys, no spaces, ASCII.

    Raises
    ------
    InvalidInputError
        A key is not a str, or a value is not a finite JSON scalar.
    """
    for key, value in settings.items():
        if not isinstance(key, str) or not isinstance(value, (str, int, float, bool, type(None))):
            raise InvalidInputError(
                f"model setting {key!r}: {value!r:.80} is not a name with a str, int, float, bool or None",
                key=key,
                value=value,
            )
    try:
        return json.dumps(dict(settings), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise InvalidInputError(f"model settings {dict(settings)!r:.200}: {error}") from None
