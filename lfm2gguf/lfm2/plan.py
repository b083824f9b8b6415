"""A plan: everything about a GGUF file but the weights. Plain data, no weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import TensorError
from lfm2gguf.gguf_file import Metadata

# Saved by some trainers, derived from the config and never learned.
IGNORED_SUFFIXES = {".rotary_emb.inv_freq": "rotary frequencies follow from the config"}


@dataclass(frozen=True)
class Source:
    """Rows ``start:stop`` of the checkpoint's tensor ``name``, whose whole shape is ``shape``.

    A row is as long as one of the tensor that is made from it; no ``stop`` stands for all.
    """

    name: str
    shape: tuple[int, ...]
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the GGUF, its shape in NumPy's order, and what it is made from.

    Its rows are those of its sources, one after another.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Plan:
    """What a checkpoint becomes, independent of the type it is stored in."""

    metadata: Metadata = field(repr=False)
    tensors: tuple[PlannedTensor, ...]
    left_out: Mapping[str, str]  # tensors of the checkpoint that are not used: why
    n_layers: int
    n_experts: int = 0


def match(
    checkpoint: Checkpoint, planned: Iterable[PlannedTensor], left_out: Mapping[str, str]
) -> dict[str, str]:
    """Check that every tensor of the checkpoint is used or left out for a reason.

    Returns the tensors that are left out, each with the reason.

    Raises:
        TensorError: a tensor is missing, left over, or of another shape than the config says.

    """
    unused = dict(checkpoint.tensors)
    for source in {source: None for tensor in planned for source in tensor.sources}:
        _check(checkpoint, source)
        unused.pop(source.name, None)
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


def _check(checkpoint: Checkpoint, source: Source) -> None:
    info = checkpoint.tensors.get(source.name)
    if info is None:
        raise TensorError(
            f"{checkpoint.path}: the tensor {source.name!r} is missing; "
            "the checkpoint is incomplete, or config.json belongs to another"
        )
    if info.shape != source.shape:
        raise TensorError(
            f"{info.file}: the tensor {source.name!r} is {_dims(info.shape)} "
            f"where config.json makes it {_dims(source.shape)}"
        )


def _kind(checkpoint: Checkpoint) -> str:
    return str(next(iter(checkpoint.config.get("architectures") or ["this architecture"])))


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
