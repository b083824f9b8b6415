"""The text model inside a vision or audio checkpoint, as a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import CheckpointError, UnsupportedError
from lfm2gguf.lfm2.config import get

# The text config's model_type: the architecture that converts it.
TEXT_MODELS = {"lfm2": "Lfm2ForCausalLM", "lfm2_moe": "Lfm2MoeForCausalLM"}
TEXT_REASON = "of the text model, which is a file of its own: convert without --mmproj"


def section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A config inside the config.

    Raises:
        CheckpointError: there is none.

    """
    inner = config.get(key)
    if not isinstance(inner, dict):
        raise CheckpointError(f"config.json: has no {key!r}, which this architecture needs")
    return inner


def text_config(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The text model's config: the inner one, over what is said outside of it.

    Raises:
        CheckpointError: there is none.
        UnsupportedError: the text model is not an LFM2.

    """
    inner = section(config, key)
    kind = get(inner, str, "model_type", default="lfm2")
    if kind not in TEXT_MODELS:
        raise UnsupportedError(f"config.json: {key} is a {kind!r}, not one of {list(TEXT_MODELS)}")
    outer = {"architectures": [TEXT_MODELS[kind]], "_name_or_path": config.get("_name_or_path")}
    return {**config, **inner, **outer}


def text_checkpoint(checkpoint: Checkpoint, key: str, roots: Mapping[str, str]) -> Checkpoint:
    """The checkpoint with the text model's config and its tensors' names as they are alone.

    ``roots`` has the beginnings of names here, and what stands there when it is alone. All other
    tensors keep their names.
    """
    tensors = {}
    for name, info in checkpoint.tensors.items():
        root = next((r for r in roots if name.startswith(r)), "")
        tensors[roots.get(root, "") + name.removeprefix(root)] = info
    return replace(checkpoint, config=text_config(checkpoint.config, key), tensors=tensors)


def root(checkpoint: Checkpoint, *candidates: str) -> str:
    """The first of the candidates that a tensor's name begins with, or the first of all."""
    for candidate in candidates:
        if any(name.startswith(candidate) for name in checkpoint.tensors):
            return candidate
    return candidates[0]


def starting(checkpoint: Checkpoint, *roots: str) -> Iterator[str]:
    """The names of the tensors that begin with one of these."""
    return (name for name in checkpoint.tensors if name.startswith(roots))
