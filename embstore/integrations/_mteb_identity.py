"""Whose vectors mteb asks for, and of what."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from embstore.encoders import NamedEncoder, as_encoder
from embstore.encoders.sentence_transformer import is_sentence_transformer
from embstore.errors import ModelNameError
from embstore.identity import ModelIdentity, Role, Setting

NO_NAME = "no_model_name/available"
"""What mteb calls a model that says no name."""


class KnownOnly(NamedEncoder):
    """A model that is only asked for what is stored of it."""

    def __init__(self, identity: ModelIdentity) -> None:
        super().__init__(self, identity.model_name)
        self._identity = identity

    def identity(self, role: Role) -> ModelIdentity:
        """Give the identity, which says the kind of prompt itself."""
        return self._identity


def identity_of(model: Any, model_name: str | None, parts: tuple[str, ...]) -> ModelIdentity:
    """Tell whose vectors one backend holds.

    Parameters
    ----------
    model : object
        mteb's encoder.
    model_name : str or None
    parts : tuple of str
        The directory that mteb names for them, below its own: task, experiment, kind of prompt.

    Raises
    ------
    ModelNameError
        The model says no name, and none was given.
    """
    meta = getattr(model, "mteb_model_meta", None)
    name = model_name or getattr(meta, "name", None)
    if not name or name == NO_NAME:
        raise ModelNameError(f"a {type(model).__name__} says no name in its mteb_model_meta; pass model_name='...'")
    settings: dict[str, Setting] = {"mteb": "/".join(parts)}
    inner = getattr(model, "model", None)
    if is_sentence_transformer(inner):
        read = as_encoder(inner, name).identity("document").settings
        settings |= {key: value for key, value in read.items() if key != "prompt"}  # mteb chooses prompts itself
    elif meta is not None and meta.revision:
        settings["revision"] = meta.revision
    prompts = getattr(model, "model_prompts", None)
    if prompts:
        settings["prompts"] = hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()[:32]
    return ModelIdentity.of(name, settings)


def content_of(item: dict[str, Any]) -> str:
    """Give the text by whose hash an item is known: its own where it has nothing else that is encoded.

    A title or an instruction is part of it, because models may read it beside the text; pictures, sounds and films are
    by mteb's own hash.
    """
    more = {key: item[key] for key in ("instruction", "title") if item.get(key)}
    media = {key: item[key] for key in ("audio", "image", "video") if item.get(key) is not None}
    if not more and not media and isinstance(item.get("text"), str):
        text: str = item["text"]
        return text
    from mteb._content_hashes import hash_item

    return json.dumps({"mteb": hash_item(item), **more}, sort_keys=True)
