"""A plan: everything about a GGUF file but the weights. Plain data, no weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lfm2gguf.checkpoint import Checkpoint, TensorInfo
from lfm2gguf.errors import TensorError
from lfm2gguf.gguf_file import Metadata

# Saved by some trainers, derived from the config and never learned.
IGNORED_SUFFIXES = {".rotary_emb.inv_freq": "rotary frequencies follow from the config"}


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the GGUF and the one of the checkpoint that it is made from.

    ``shape`` is the GGUF's in NumPy's order; ``source_shape`` the checkpoint's.
    """

    name: str
    shape: tuple[int, ...]
    source: str
    source_shape: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What a checkpoint becomes, independent of the type it is stored in."""

    metadata: Metadata = field(repr=False)
    tensors: tuple[PlannedTensor, ...]
    left_out: Mapping[str, str]  # tensors of the checkpoint that are not used: why
    n_layers: int


def match(
    checkpoint: Checkpoint, planned: Iterable[PlannedTensor], left_out: Mapping[str, str]
) -> dict[str, str]:
    """Check that every tensor of the checkpoint is used exactly once or left out for a reason.

    Returns the tensors that are left out, each with the reason.

    Raises:
        TensorError: a tensor is missing, left over, or of another shape than the config says.

    """
    unused = dict(checkpoint.tensors)
    for tensor in planned:
        _check(checkpoint, unused.pop(tensor.source, None), tensor)
    reasons = {}
    for name in unused:
        suffix = next((s for s in IGNORED_SUFFIXES if name.endswith(s)), "")
        if reason := left_out.get(name) or IGNORED_SUFFIXES.get(suffix):
            reasons[name] = reason
        else:
            raise TensorError(
                f"{checkpoint.path}: the tensor {name!r} has no place in {_kind(checkpoint)}; "
                "is it the right config.json, or a fine-tune that adds modules?"
            )
    return reasons


def _check(checkpoint: Checkpoint, info: TensorInfo | None, tensor: PlannedTensor) -> None:
    if info is None:
        raise TensorError(
            f"{checkpoint.path}: the tensor {tensor.source!r} is missing; "
            "the checkpoint is incomplete, or config.json belongs to another"
        )
    if info.shape != tensor.source_shape:
        raise TensorError(
            f"{info.file}: the tensor {tensor.source!r} is {_dims(info.shape)} "
            f"where config.json makes it {_dims(tensor.source_shape)}"
        )


def _kind(checkpoint: Checkpoint) -> str:
    return str(next(iter(checkpoint.config.get("architectures") or ["this architecture"])))


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
