"""The text model inside a vision or audio checkpoint, as a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import CheckpointError, UnsupportedError
from lfm2gguf.lfm2.config import get

# The text config's model_type: the architecture that converts it.
TEXT_MODELS = {"lfm2": "Lfm2ForCausalLM", "lfm2_moe": "Lfm2MoeForCausalLM"}
TEXT_REASON = "of the text model, which is a file of its own: convert without --mmproj"


def section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a config inside the config.

    Raises:
        CheckpointError: there is none.

    """
    inner = config.get(key)
    if not isinstance(inner, dict):
        raise CheckpointError(
            f"config.json: {key!r} is missing or not an object; copy the file from the model that "
            "this one was made from"
        )
    return inner


def text_config(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the text model's config: the inner one, over what the outer one says.

    Raises:
        CheckpointError: there is none.
        UnsupportedError: the text model is not an LFM2.

    """
    inner = section(config, key)
    kind = get(inner, str, "model_type", default="lfm2")
    if kind not in TEXT_MODELS:
        raise UnsupportedError(
            f"config.json: {key} is {kind!r}; only {' and '.join(TEXT_MODELS)} can be converted"
        )
    outer = {"architectures": [TEXT_MODELS[kind]], "_name_or_path": config.get("_name_or_path")}
    return {**config, **inner, **outer}


def text_checkpoint(checkpoint: Checkpoint, key: str, roots: Mapping[str, str]) -> Checkpoint:
    """Return the checkpoint with the text model's config and its tensors' names as they are alone.

    ``roots`` maps the beginnings of names here to what they are alone. All other tensors keep
    their names.
    """
    tensors = {}
    for name, info in checkpoint.tensors.items():
        root = next((r for r in roots if name.startswith(r)), "")
        tensors[roots.get(root, "") + name.removeprefix(root)] = info
    return replace(checkpoint, config=text_config(checkpoint.config, key), tensors=tensors)


def root(names: Iterable[str], *candidates: str) -> str:
    """Return the first candidate that some name begins with, or the first of all."""
    names = list(names)
    found = (c for c in candidates if any(name.startswith(c) for name in names))
    return next(found, candidates[0])


def starting(names: Iterable[str], *roots: str) -> Iterator[str]:
    """Return the names that begin with one of these."""
    return (name for name in names if name.startswith(roots))
