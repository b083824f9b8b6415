"""Which tensor of a file gets which type: llama.cpp's mixtures, as data.

The rules are those of src/llama-quant.cpp, commit 0c1e57098 (``tensor_allows_quantization``,
``llama_tensor_get_type_impl``, ``tensor_type_fallback``), as far as LFM2's tensors meet them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lfm2gguf.ggml import FileType, GGMLType

# Parts of names of tensors that stay as they are, although they are matrices.
KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "shortconv.conv.weight",
    ".position_embd",
    ".patch_embd",
)

# Types for rows that do not divide into a type's blocks; F16 where these do not fit either.
FALLBACK = {
    GGMLType.Q4_K: GGMLType.Q5_0,
    GGMLType.Q5_K: GGMLType.Q5_1,
    GGMLType.Q6_K: GGMLType.Q8_0,
}

# A projector (mmproj) is small, and stored in a type that needs no mixture: conversion/base.py and
# conversion/gemma.py (``tensor_force_quant``). These parts of names stay float32.
PROJECTOR_TYPES = (FileType.F32, FileType.F16, FileType.BF16, FileType.Q8_0)
PROJECTOR_FLOATS = ("_norm.weight", ".position_embd", ".conv1d.", ".conv_")

BLOCK = re.compile(r"blk\.(\d+)\.")


def _more_bits(i: int, n: int) -> bool:
    """Return whether it is of the first or last eighth, or a third in between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


@dataclass(frozen=True)
class Rule:
    """``type`` for those tensors for which ``applies(i, n)``: the i-th of n."""

    type: GGMLType
    applies: Callable[[int, int], bool]


# For attn_v, i counts the attn_v tensors met so far; for ffn_down it is the block's number.
RULES: dict[tuple[FileType, str], Rule] = {
    (FileType.Q5_K_M, "attn_v"): Rule(GGMLType.Q6_K, _more_bits),
    (FileType.Q5_K_M, "ffn_down"): Rule(GGMLType.Q6_K, _more_bits),
    (FileType.Q4_K_M, "attn_v"): Rule(GGMLType.Q6_K, _more_bits),
    (FileType.Q4_K_M, "ffn_down"): Rule(GGMLType.Q6_K, _more_bits),
    (FileType.Q4_K_S, "attn_v"): Rule(GGMLType.Q5_K, lambda i, n: i < 4),
    (FileType.Q4_K_S, "ffn_down"): Rule(GGMLType.Q5_K, lambda i, n: i < n // 8),
}

# With exactly eight experts attention is small beside them, and gets more bits.
EIGHT_EXPERTS = {"attn_v": GGMLType.Q8_0, "attn_k": GGMLType.Q8_0}
EIGHT_EXPERTS_OUTPUT = {FileType.Q4_K_M: GGMLType.Q5_K, FileType.Q4_K_S: GGMLType.Q5_K}


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
    n_layers: int,
    n_experts: int = 0,
) -> list[GGMLType | None]:
    """Return the type of each tensor, given as (name, shape) in :func:`file_order`.

    None stands for tensors that keep the type they have.
    """
    if not file_type.default.is_quantized:
        return [file_type.default if is_quantizable(*t) else None for t in tensors]
    tied = not any(name == "output.weight" for name, _ in tensors)
    n_values = sum("attn_v.weight" in name for name, _ in tensors)
    types: list[GGMLType | None] = []
    i_value = 0
    for name, shape in tensors:
        if not is_quantizable(name, shape):
            types.append(None)
            continue
        row, type = shape[-1], file_type.default
        block = BLOCK.match(name)
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            type = _output_type(type, row)
        elif "attn_v.weight" in name:
            type = _by_rule(file_type, "attn_v", i_value, n_values)
            i_value += 1
        elif "ffn_down" in name and block:
            type = _by_rule(file_type, "ffn_down", int(block[1]), n_layers)
        if n_experts == 8:
            type = _with_eight_experts(file_type, name, type)
        types.append(_fitting(type, row))
    return types


def assign_projector(
    file_type: FileType, tensors: Sequence[tuple[str, Sequence[int]]]
) -> list[GGMLType]:
    """Return the type of each tensor of a projector, given as (name, shape in NumPy's order)."""
    return [_projector_type(file_type, name, shape) for name, shape in tensors]


def _projector_type(file_type: FileType, name: str, shape: Sequence[int]) -> GGMLType:
    floats = any(part in name for part in PROJECTOR_FLOATS)
    if floats or len(shape) < 2 or not name.endswith(".weight"):
        return GGMLType.F32
    if ".patch_embd" in name:  # a convolution's kernel, for which ggml has float16 and float32
        return GGMLType.F16 if file_type is FileType.F16 else GGMLType.F32
    return _fitting(file_type.default, shape[-1])


def _by_rule(file_type: FileType, kind: str, i: int, n: int) -> GGMLType:
    rule = RULES.get((file_type, kind))
    return rule.type if rule and rule.applies(i, n) else file_type.default


def _output_type(default: GGMLType, row: int) -> GGMLType:
    """The output projection decides over every token, and gets at least six bits."""
    return GGMLType.Q8_0 if default is GGMLType.Q8_0 or row % default.block_size else GGMLType.Q6_K


def _with_eight_experts(file_type: FileType, name: str, type: GGMLType) -> GGMLType:
    if "attn_output.weight" in name:
        return EIGHT_EXPERTS_OUTPUT.get(file_type, type)
    return next((t for kind, t in EIGHT_EXPERTS.items() if f"{kind}.weight" in name), type)


def _fitting(type: GGMLType, row: int) -> GGMLType:
    """Return the type, or the one to fall back to where rows do not divide into its blocks."""
    if row % type.block_size == 0:
        return type
    fallback = FALLBACK.get(type, type)
    return fallback if row % fallback.block_size == 0 else GGMLType.F16
