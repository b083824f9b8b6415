"""A LoRA adapter becomes a GGUF file that llama.cpp applies to its base model's.

As convert_lora_to_gguf.py of llama.cpp, commit 0c1e57098, writes it; but scales that are not
alpha / rank (rsLoRA, alpha patterns), which it loses, are kept, and packed experts taken too.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint import Adapter, Checkpoint, LowRank
from lfm2gguf.conversion.write import WrittenFile
from lfm2gguf.errors import CheckpointError, OptionError, TensorError, UnsupportedError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import Layout, Metadata, TensorSpec, Value, ValueType, lay_out
from lfm2gguf.lfm2 import (
    Adapted,
    PlannedTensor,
    base_tensors,
    check_deltas,
    described,
    find_deltas,
    recorded,
    summary,
    text_adapter,
    text_model,
)
from lfm2gguf.quants import find_nonfinite, quantize
from lfm2gguf.storage import Stamp, check_unchanged, is_folder, made_folder, stamps

TYPES = ("F32", "F16", "BF16", "Q8_0")
MERGE = "merge it instead: convert(base, lora=adapter) (lfm2gguf convert BASE --lora ADAPTER)"
EMBEDDING, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class ConvertedAdapter:
    """The file that was written, and what was decided about it."""

    file: WrittenFile
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Tensor:
    """A tensor of an adapter file; ``make`` reads its values, float32."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class AdapterPlan:
    """An adapter's file, decided; no factor has been read. ``notes`` say what it leaves out."""

    target: Path
    type: GGMLType
    notes: tuple[str, ...]
    _adapter: Adapter = field(repr=False)
    _layout: Layout = field(repr=False)
    _specs: tuple[TensorSpec, ...] = field(repr=False)
    _tensors: tuple[_Tensor, ...] = field(repr=False)
    _files: tuple[Stamp, ...] = field(repr=False)
    _folder: Path | None = field(repr=False)  # made where it is missing

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self._layout.size

    def write(self, *, overwrite: bool = False) -> ConvertedAdapter:
        """Write the file, whole or not at all.

        Raises:
            OutputError: the target exists, cannot be written, or the disk is full.
            TensorError: a factor is NaN or infinite, or the adapter was written meanwhile.

        """
        began = time.perf_counter()
        layout, specs = self._layout, self._specs
        with (
            made_folder(self._folder) if self._folder else contextlib.nullcontext(),
            layout.create(self.target, overwrite=overwrite) as partial,
            partial.open("r+b") as file,
        ):
            for tensor, spec, offset in zip(self._tensors, specs, layout.offsets, strict=True):
                file.seek(offset)
                file.write(quantize(_finite(self._adapter, tensor), spec.type).tobytes())
            check_unchanged(self._files)
        n_weights = sum(math.prod(spec.shape) for spec in specs)
        written = WrittenFile(
            self.target,
            self.type.name,
            layout.size,
            n_weights,
            8 * layout.size / n_weights,
            time.perf_counter() - began,
            dict(Counter(spec.type.name for spec in specs)),
        )
        return ConvertedAdapter(written, self.notes)


def plan_adapter(
    adapter: str | Path,
    base: str | Path | None = None,
    target: str | Path | None = None,
    type: str = "F32",
) -> AdapterPlan:
    """Decide the GGUF file of a PEFT adapter, to be loaded beside its base model's.

    Args:
        adapter: the adapter's folder, or its Hub id.
        base: the base model's folder or Hub id, of which only config.json is read; by default
            the one that the adapter names.
        target: a file's name, or a folder for a file of the default name (the default: here).
        type: F32, F16, BF16 or Q8_0.

    Raises:
        CheckpointError: the adapter is incomplete or damaged, or does not fit the base.
        UnsupportedError: an adapter file cannot hold what it changes.
        OptionError: the type is unknown.
        HubError: a repository could not be fetched.

    """
    opened = Adapter.open(adapter)
    notes, tensors, metadata = _plan(opened, base)
    stored = _type(type)
    specs = tuple(TensorSpec(t.name, _fitting(stored, t.shape[-1]), t.shape) for t in tensors)
    path, folder = Path(target or ""), None
    if is_folder(target or "."):
        path, folder = path / f"{opened.name}-{stored.name}-LoRA.gguf", path
    layout = lay_out(metadata, specs)
    files = stamps(opened.files)
    return AdapterPlan(path, stored, notes, opened, layout, specs, tuple(tensors), files, folder)


def convert_lora(
    adapter: str | Path,
    base: str | Path | None = None,
    target: str | Path | None = None,
    type: str = "F32",
    *,
    overwrite: bool = False,
) -> ConvertedAdapter:
    """Convert a PEFT adapter to a GGUF file, to be loaded beside its base model's.

    It is :func:`plan_adapter`, which explains the arguments, and then its ``write``;
    ``overwrite`` replaces a file that exists.

    Raises:
        Lfm2ggufError: one of its subclasses; nothing has been written then.

    """
    return plan_adapter(adapter, base, target, type).write(overwrite=overwrite)


def _plan(
    adapter: Adapter, base: str | Path | None
) -> tuple[tuple[str, ...], Sequence[_Tensor], Metadata]:
    """Return the notes, the tensors and the metadata."""
    checkpoint = Checkpoint.config_only(base or adapter.base)
    architecture, planned = base_tensors(checkpoint)
    adapter, left_out = text_adapter(checkpoint, adapter)
    _refuse_what_has_no_place(adapter, planned)
    deltas = find_deltas(text_model(checkpoint).config, adapter)
    is_tied = not any(tensor.name == HEAD for tensor in planned)
    if is_tied and any(name.startswith(("lm_head.", "model.embed_tokens.")) for name in deltas):
        raise UnsupportedError(
            f"{adapter.path}: changes the embedding or the head, which are one weight in the base "
            f"model: llama.cpp cannot apply that as an adapter; {MERGE}"
        )
    check_deltas(Adapted(checkpoint, deltas), planned)
    factors = _factors(adapter, deltas)
    alpha = float(adapter.config["lora_alpha"])
    if len(set(factors.values())) == 1:  # then alpha can carry it, and no weight changes
        alpha *= next(iter(factors.values()))
        factors = dict.fromkeys(deltas, 1.0)
    tensors = list(_tensors(planned, deltas, factors))
    metadata = _metadata(adapter, architecture, alpha, tensors)
    return summary(adapter, deltas, left_out), tensors, metadata


def _refuse_what_has_no_place(adapter: Adapter, planned: Sequence[PlannedTensor]) -> None:
    if not adapter.factors:
        raise CheckpointError(f"{adapter.path}: holds no LoRA factors for the text model")
    shapes = {source.key: source.shape for tensor in planned for source in tensor.sources}
    # With the base's shape they only repeat its weights.
    other = [n for n, t in adapter.base_layers.items() if t.shape != shapes.get(n, t.shape)]
    if whole := [*adapter.saved, *other]:
        raise UnsupportedError(
            f"{adapter.path}: holds {whole[0]!r} whole (modules_to_save, or a "
            f"grown vocabulary), which an adapter file has no place for; {MERGE}"
        )
    if any("lora_magnitude_vector" in factors for factors in adapter.factors.values()):
        raise UnsupportedError(
            f"{adapter.path}: is DoRA, whose lengths an adapter file has no place for; {MERGE}"
        )


def _factors(adapter: Adapter, deltas: Mapping[str, LowRank]) -> dict[str, float]:
    """Return each delta's scale, in units of the one that llama.cpp will apply: alpha / rank."""
    alpha = float(adapter.config["lora_alpha"])
    return {name: delta.scale * delta.rank / alpha for name, delta in deltas.items()}


def _tensors(
    planned: Sequence[PlannedTensor], deltas: Mapping[str, LowRank], factors: Mapping[str, float]
) -> Iterator[_Tensor]:
    """Yield the file's tensors, in the order in which the adapter has the weights."""
    owners = {source.key: tensor for tensor in planned for source in tensor.sources}
    for tensor in dict.fromkeys(owners[name] for name in deltas):
        names = [source.key for source in tensor.sources]
        if missing := [name for name in names if name not in deltas]:
            raise TensorError(
                f"the adapter changes some of the experts and not {missing[0]!r}; a GGUF has them "
                f"stacked, and so their deltas; {MERGE}"
            )
        ranks = {deltas[name].rank for name in names}
        if len(ranks) > 1:
            raise UnsupportedError(f"{tensor.name}: its experts' ranks differ ({ranks}); {MERGE}")
        yield from _pair(tensor, [deltas[n] for n in names], [factors[n] for n in names])


def _pair(
    tensor: PlannedTensor, deltas: Sequence[LowRank], factors: Sequence[float]
) -> Iterator[_Tensor]:
    rank, stack = deltas[0].rank, tensor.shape[:-2]
    rows, columns = tensor.shape[-2:]

    def right() -> NDArray[np.float32]:
        return np.stack([delta.right.read() for delta in deltas])

    def left() -> NDArray[np.float32]:
        scaled = zip(deltas, factors, strict=True)
        return np.stack([delta.left.read() * np.float32(factor) for delta, factor in scaled])

    a, b = f"{tensor.name}.lora_a", f"{tensor.name}.lora_b"
    if tensor.name == EMBEDDING:  # looked up by rows, and so the other way round
        yield _Tensor(a, (rows, rank), left)
        yield _Tensor(b, (columns, rank), lambda: np.ascontiguousarray(right()[0].T))
    else:
        yield _Tensor(a, (*stack, rank, columns), right)
        yield _Tensor(b, (*stack, rows, rank), left)


def _finite(adapter: Adapter, tensor: _Tensor) -> NDArray[np.float32]:
    values = tensor.make()
    if (at := find_nonfinite(values)) is not None:
        raise TensorError(
            f"{adapter.path}: holds {values[at]} for {tensor.name}; the adapter is broken (a "
            "training that diverged?)"
        )
    return values


def _metadata(
    adapter: Adapter, architecture: str, alpha: float, tensors: Sequence[_Tensor]
) -> Metadata:
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    size = sum(math.prod(b.shape[:-1]) * a.shape[-1] for a, b in pairs)
    about = described(adapter.path, adapter.name, {}, -size)
    about.name = about.name or adapter.name
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    about.set_gguf_meta_model(writer)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    tokens: Any = adapter.config.get("alora_invocation_tokens")
    invoked = Value(ValueType.ARRAY, list(tokens or []), ValueType.UINT32)
    return (
        recorded(writer)
        | ({"adapter.alora.invocation_tokens": invoked} if tokens else {})
        | {"general.quantization_version": Value(ValueType.UINT32, 2)}
    )


def _type(name: str) -> GGMLType:
    if name.strip().upper() not in TYPES:
        raise OptionError(f"unknown type {name!r} for an adapter; known: {', '.join(TYPES)}")
    return GGMLType[name.strip().upper()]


def _fitting(type: GGMLType, row: int) -> GGMLType:
    return type if row % type.block_size == 0 else GGMLType.F16
