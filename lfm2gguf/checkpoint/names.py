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

_WRAPPED = re.compile(rf"(?:(?<=\.)|^)(?:{'|'.join(SEGMENTS)})\.")


def unwrapped(name: str, *, has_head: bool) -> str:
    """Return the name that transformers saves a tensor under.

    ``has_head`` says that the architecture has a head, and so ``model.`` before all other names.
    """
    name = _WRAPPED.sub("", name)
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name[len(prefix) :]
    return f"model.{name}" if has_head and name.startswith(BARE) else name


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
