"""A plan: everything about a GGUF file but the weights. Plain data, no weight is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint import Checkpoint, LowRank, TensorInfo
from lfm2gguf.errors import TensorError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import Metadata

# Saved by some trainers and not part of the model: how a name begins or ends, and why.
TRAINING = "only its training needs it"
FROM_CONFIG = "rotary frequencies follow from the config"
IGNORED_PREFIXES = dict.fromkeys(
    ("optimizer.", "optimizer_state.", "lr_scheduler.", "global_step", "v_head."), TRAINING
)
IGNORED_SUFFIXES = {
    ".rotary_emb.inv_freq": FROM_CONFIG,
    ".rotary_emb.original_inv_freq": FROM_CONFIG,
    ".pos_emb.inv_freq": FROM_CONFIG,
    ".pos_emb.original_inv_freq": FROM_CONFIG,
}
# In the names of an adapter that is still beside its model.
UNMERGED = (".lora_", ".base_layer.", ".modules_to_save.")


@dataclass(frozen=True)
class Source:
    """Rows ``start:stop`` of the checkpoint's tensor ``name``, whose whole shape is ``shape``.

    A row is as long as one of the tensor that is made from it; a ``stop`` of None means to the end.
    ``alone`` is the name that these rows have where they are saved by themselves.
    """

    name: str
    shape: tuple[int, ...]
    start: int = 0
    stop: int | None = None
    alone: str = ""

    @property
    def key(self) -> str:
        """Return the weight's name, the same however it is saved."""
        return self.alone or self.name

    def n_rows(self, n_per_row: int) -> int:
        """Count the rows of ``n_per_row`` weights."""
        stop = math.prod(self.shape) // n_per_row if self.stop is None else self.stop
        return stop - self.start


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the GGUF, its shape in NumPy's order, and what it is made from.

    Its rows are those of its sources, one after another. Where they are not, ``compute`` makes
    the weights (float32, of ``shape``) from the whole sources: only small tensors have one.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[Source, ...]
    compute: Callable[..., NDArray[np.float32]] | None = None
    # The type where no mixture gives one: what llama.cpp's converter stores it in. That is F32 for
    # vectors, norms, gates and the convolution's kernel.
    kept: GGMLType = GGMLType.F32


@dataclass(frozen=True)
class Plan:
    """What a checkpoint becomes, independent of the type it is stored in."""

    checkpoint: Checkpoint = field(repr=False)  # the sources' names refer to it
    metadata: Metadata = field(repr=False)
    tensors: tuple[PlannedTensor, ...]
    left_out: Mapping[str, str]  # tensors of the checkpoint that are not used: why
    n_layers: int
    n_experts: int = 0
    notes: tuple[str, ...] = ()  # what was decided that a user may not expect
    # Of an adapter, by weight: see lora.Adapted.
    deltas: Mapping[str, LowRank] = field(default_factory=dict, repr=False)
    column_lengths: Mapping[str, TensorInfo] = field(default_factory=dict, repr=False)

    @property
    def sources(self) -> set[TensorInfo]:
        """Return the checkpoint's tensors that are used."""
        names = {source.name for tensor in self.tensors for source in tensor.sources}
        return {self.checkpoint.tensors[name] for name in names}


def match(
    checkpoint: Checkpoint, planned: Iterable[PlannedTensor], left_out: Mapping[str, str]
) -> dict[str, str]:
    """Check that every tensor of the checkpoint is used or left out for a reason.

    Return the tensors that are left out, each with the reason.

    Raises:
        TensorError: a tensor is missing, left over, or of another shape than the config says.

    """
    unused = dict(checkpoint.tensors)
    for source in {source: None for tensor in planned for source in tensor.sources}:
        _check(checkpoint, source)
        unused.pop(source.name, None)
    return {name: left_out.get(name) or _why_ignored(checkpoint, name) for name in unused}


def _why_ignored(checkpoint: Checkpoint, name: str) -> str:
    for mark, why in IGNORED_PREFIXES.items():
        if name.startswith(mark):
            return why
    for mark, why in IGNORED_SUFFIXES.items():
        if name.endswith(mark):
            return why
    _refuse_unmerged(checkpoint)
    raise TensorError(
        f"{checkpoint.path}: the tensor {name!r} does not belong to {_kind(checkpoint)}; "
        "is it the right config.json, or a fine-tune that adds modules?"
    )


def _refuse_unmerged(checkpoint: Checkpoint) -> None:
    for name in checkpoint.tensors:
        if any(mark in name for mark in UNMERGED):
            raise TensorError(
                f"{checkpoint.path}: the tensor {name!r} is an adapter's, not merged into the "
                "model; save model.merge_and_unload(), or give the base model and --lora ADAPTER"
            )


def _check(checkpoint: Checkpoint, source: Source) -> None:
    info = checkpoint.tensors.get(source.name)
    if info is None:
        _refuse_unmerged(checkpoint)
        like = next((n for n in checkpoint.tensors if n.endswith(f".{source.name}")), "")
        raise TensorError(
            f"{checkpoint.path}: the tensor {source.name!r} is missing"
            + f", and there is {like!r}: save the model alone" * bool(like)
            + "; "
            "the checkpoint is incomplete, or config.json belongs to another: download both again"
        )
    if info.shape != source.shape and 0 in info.shape:
        raise TensorError(
            f"{info.file}: the tensor {source.name!r} is empty: DeepSpeed's ZeRO-3 keeps weights "
            "in parts elsewhere, and they were not gathered; run the zero_to_fp32.py that lies in "
            "its checkpoint's folder, or train with stage3_gather_16bit_weights_on_model_save"
        )
    if info.shape != source.shape:
        raise TensorError(
            f"{info.file}: the tensor {source.name!r} is {_dims(info.shape)} "
            f"where config.json makes it {_dims(source.shape)}; is it the right config.json?"
        )


def _kind(checkpoint: Checkpoint) -> str:
    return str(next(iter(checkpoint.config.get("architectures") or ["this architecture"])))


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
