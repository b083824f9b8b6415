"""Which tensor of a file gets which type, by llama.cpp's mixtures.

As in src/llama-quant.cpp, commit 0c1e57098 (``tensor_allows_quantization``,
``llama_tensor_get_type``, ``tensor_type_fallback``), as far as LFM2's tensors meet it. The
mixtures themselves are tables in :mod:`lfm2gguf.conversion.rules`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

from lfm2gguf.conversion.overrides import Overrides
from lfm2gguf.conversion.rules import (
    EMBEDDING,
    FALLBACK,
    LOW,
    NEED_IMPORTANCE,
    OUTPUT_OF_FIVE,
    RULES,
    Place,
)
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType, GGMLType

# Parts of names of tensors that stay as they are, although they are matrices.
KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "shortconv.conv.weight",
    ".position_embd",
    ".patch_embd",
)

# A projector (mmproj) is small, and llama.cpp's converter stores it in types without a mixture:
# conversion/base.py and conversion/gemma.py (``tensor_force_quant``). These parts of names stay
# float32; llama-quantize would change the kernels of convolutions, and stops there.
PROJECTOR_TYPES = (FileType.F32, FileType.F16, FileType.BF16, FileType.Q8_0)
PROJECTOR_KERNELS = (".conv1d.", ".conv_")
PROJECTOR_FLOATS = ("_norm.weight", ".position_embd", *PROJECTOR_KERNELS)

BLOCK = re.compile(r"blk\.(\d+)\.")
OUTPUT, EMBEDDING_NAME = "output.weight", "token_embd.weight"

# What kind of tensor has which part of a name; the first that fits (``tensor_get_category``).
PARTS = {
    "attn_v": "attn_v.weight",
    "attn_k": "attn_k.weight",
    "attn_q": "attn_q.weight",
    "attn_output": "attn_output.weight",
    "ffn_up": "ffn_up",
    "ffn_gate": "ffn_gate",
    "ffn_down": "ffn_down",
}


@dataclass(frozen=True)
class Facts:
    """What the mixtures ask about a model, as llama.cpp reads it from the metadata."""

    n_layers: int
    n_experts: int = 0
    n_gqa: int = 0  # query heads to a key and value head in the first layer
    importance: bool = False  # whether there is an importance matrix


def is_quantizable(name: str, shape: Sequence[int]) -> bool:
    """Return whether llama-quantize changes the type of a tensor; ``shape`` is in NumPy's order."""
    dimensions = len(shape) - next((i for i, n in enumerate(shape) if n > 1), len(shape))
    return dimensions >= 2 and name.endswith("weight") and not any(k in name for k in KEPT)


def file_order(name: str) -> tuple[int, str]:
    """Return llama-quantize's sort key: tensors of no block first, then block by block."""
    block = BLOCK.match(name)
    return (int(block[1]) if block else -1, name)


def assign(
    file_type: FileType,
    tensors: Sequence[tuple[str, Sequence[int]]],
    facts: Facts,
    overrides: Overrides | None = None,
) -> list[GGMLType | None]:
    """Return the type of each tensor, given as (name, shape) in :func:`file_order`.

    None stands for tensors that keep the type they have.

    Raises:
        OptionError: a row divides into the blocks of no type that could take its place.

    """
    mixture = _Mixture(file_type, facts, overrides or Overrides(), tensors)
    return [mixture.type_of(name, shape) for name, shape in tensors]


def lacking_importance(
    file_type: FileType, tensors: Sequence[tuple[str, GGMLType | None]], known: Container[str]
) -> list[str]:
    """Return the tensors whose types llama-quantize does not write without importance."""
    of_file = (GGMLType.Q2_K,) if file_type is FileType.Q2_K_S else ()
    return [
        name
        for name, type in tensors
        if type in (*NEED_IMPORTANCE, *of_file)
        and name not in ("token_embd.weight", "output.weight")
        and name not in known
    ]


class _Mixture:
    """The types of one file's tensors, asked for in the file's order, each once."""

    def __init__(
        self,
        file_type: FileType,
        facts: Facts,
        overrides: Overrides,
        tensors: Sequence[tuple[str, Sequence[int]]],
    ) -> None:
        self._file, self._facts, self._overrides = file_type, facts, overrides
        self._tied = not any(name == OUTPUT for name, _ in tensors)
        self._n_values = sum("attn_v.weight" in name for name, _ in tensors)
        self._met: Counter[str] = Counter()

    def type_of(self, name: str, shape: Sequence[int]) -> GGMLType | None:
        """Decide as ``llama_tensor_get_type`` does."""
        if not is_quantizable(name, shape) or (self._overrides.leave_output and name == OUTPUT):
            return None
        if named := self._overrides.of_embedding_or_output(name):
            return _exactly(name, named, shape[-1])
        if not self._file.default.is_quantized:
            return self._file.default
        type = self._overrides.of_pattern(name)
        if type is None and self._overrides.pure:
            type = self._file.default
        return fitting(name, type or self._of_mixture(name, shape), shape[-1])

    def _of_mixture(self, name: str, shape: Sequence[int]) -> GGMLType:
        """As ``llama_tensor_get_type_impl``."""
        file, default = self._file, self._file.default
        if name == OUTPUT or (self._tied and name == EMBEDDING_NAME):
            return self._overrides.output or _output_type(file, shape[-1])
        if file is FileType.MXFP4_MOE:
            return default if len(shape) > 2 and shape[-3] > 1 else GGMLType.Q8_0
        if name == EMBEDDING_NAME:
            return EMBEDDING.get(file, default)
        kind = next((kind for kind, part in PARTS.items() if part in name), None)
        if kind is None:
            return default
        place = self._place(kind, name)
        return next((r.type for r in RULES[file, kind] if r.applies(place)), default)

    def _place(self, kind: str, name: str) -> Place:
        i = self._met[kind]
        self._met[kind] += 1
        facts, block = self._facts, BLOCK.match(name)
        if kind == "attn_v":
            n = self._n_values
        else:
            n = facts.n_layers
            if facts.n_experts > 1 and block and self._file not in LOW:
                i = int(block[1])
        return Place(i, n, facts.n_experts, facts.n_gqa, facts.importance)


def assign_projector(
    file_type: FileType,
    tensors: Sequence[tuple[str, Sequence[int]]],
    overrides: Overrides,
    *,
    quantized: bool,
) -> Sequence[GGMLType | None]:
    """Return the type of each tensor of a projector, given as :func:`assign` has them.

    ``quantized``: from a GGUF, as llama-quantize has it, to which a projector is a model without
    layers. The converter's types are its own, where nothing asks for others.

    Raises:
        OptionError: as :func:`assign`.

    """
    if not quantized and file_type in PROJECTOR_TYPES and overrides == Overrides():
        return [_projector_type(file_type, name, shape) for name, shape in tensors]
    types = assign(file_type, tensors, Facts(0), overrides)
    return [
        None if any(part in name for part in PROJECTOR_KERNELS) else type
        for (name, _), type in zip(tensors, types, strict=True)
    ]


def _projector_type(file_type: FileType, name: str, shape: Sequence[int]) -> GGMLType:
    floats = any(part in name for part in PROJECTOR_FLOATS)
    if floats or len(shape) < 2 or not name.endswith(".weight"):
        return GGMLType.F32
    if ".patch_embd" in name:  # a convolution's kernel, for which ggml has float16 and float32
        return GGMLType.F16 if file_type is FileType.F16 else GGMLType.F32
    return fitting(name, file_type.default, shape[-1])


def _output_type(file: FileType, row: int) -> GGMLType:
    default = file.default
    if file is FileType.MXFP4_MOE or row % default.block_size:
        return GGMLType.Q8_0
    if file in OUTPUT_OF_FIVE:
        return GGMLType.Q5_K
    return GGMLType.Q8_0 if default is GGMLType.Q8_0 else GGMLType.Q6_K


def _exactly(name: str, type: GGMLType, row: int) -> GGMLType:
    if row % type.block_size:
        raise OptionError(
            f"tensor {name!r}: rows of {row} weights do not divide into {type.name}'s blocks of "
            f"{type.block_size}; name another type for it"
        )
    return type


def fitting(name: str, type: GGMLType, row: int) -> GGMLType:
    """Return the type, or the one to fall back to where rows do not divide into its blocks.

    Raises:
        OptionError: llama.cpp has none for the type.

    """
    if row % type.block_size == 0:
        return type
    if type not in FALLBACK and type.block_size > 32:
        raise OptionError(
            f"tensor {name!r}: rows of {row} weights do not divide into {type.name}'s blocks of "
            f"{type.block_size}, and no type is known to take its place; use another type"
        )
    fallback = FALLBACK.get(type, type)
    return fallback if row % fallback.block_size == 0 else GGMLType.F16
