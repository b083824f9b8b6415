"""The names of a checkpoint's tensors, however its trainer wrapped the model."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lfm2gguf.errors import CheckpointError

# What wrappers put before the names, and at any place in them: torch.compile, data parallelism
# (DDP, DeepSpeed), PEFT, FSDP, activation checkpointing.
PREFIXES = ("module.", "base_model.model.")
SEGMENTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# The model without its head, saved by itself: how its names begin.
BARE = ("layers.", "embed_tokens.", "embedding_norm.")
# The embedding's name in a model with a head (or its body), and in any other: those of the vision
# and audio models are their text models'.
EMBEDDINGS = {
    True: ("model.embed_tokens.weight", "embed_tokens.weight"),
    False: (
        "model.language_model.embed_tokens.weight", "language_model.model.embed_tokens.weight",
        "lfm.embed_tokens.weight", "embed_tokens.weight",
    ),
}  # fmt: skip

_WRAPPED = re.compile(rf"(?:(?<=\.)|^)(?:{'|'.join(SEGMENTS)})\.")


def unwrapped(name: str, *, has_head: bool) -> str:
    """Return the name that transformers saves a tensor under.

    ``has_head`` says that the architecture has a head, and so ``model.`` before all other names.
    """
    name = _WRAPPED.sub("", name)
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name[len(prefix) :]
    return f"model.{name}" if has_head and name.startswith(BARE) else name


def outer_prefix(names: Iterable[str], *, has_head: bool) -> str:
    """Return what stands before all of a model's names: it was an attribute of another module.

    The embedding's name tells, where there is one embedding; wrappers that
    :func:`unwrapped` knows are not meant. Empty where some layer's name begins otherwise.
    """
    names = [name for name in names if "layers." in name or name.endswith("embed_tokens.weight")]
    embeddings = [name for name in names if name.endswith("embed_tokens.weight")]
    if len(embeddings) != 1 or unwrapped(embeddings[0], has_head=has_head) in EMBEDDINGS[has_head]:
        return ""
    forms = (form for form in EMBEDDINGS[has_head] if embeddings[0].endswith(f".{form}"))
    prefix = embeddings[0].removesuffix(next(forms, embeddings[0]))
    return prefix if all(name.startswith(prefix) for name in names) else ""


def unwrapped_names(names: Iterable[str], *, has_head: bool) -> dict[str, str]:
    """Pair each tensor's name in transformers with the one that it has.

    Raises:
        CheckpointError: two tensors come to the same name.

    """
    found: dict[str, str] = {}
    for name in names:
        canonical = unwrapped(name, has_head=has_head)
        if canonical in found:
            raise CheckpointError(
                f"the tensors {found[canonical]!r} and {name!r} are both {canonical!r}; "
                "save the model alone, without its wrapper or its adapter"
            )
        found[canonical] = name
    return found
