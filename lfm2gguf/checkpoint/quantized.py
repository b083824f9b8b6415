"""Checkpoints whose weights are quantized already: by what, and the way back.

What counts is what is stored: a trainer that merged an adapter into BF16 weights often leaves the
old ``quantization_config`` behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfm2gguf.checkpoint.safetensors import TensorInfo
from lfm2gguf.errors import UnsupportedError

ORIGINAL = "convert the original BF16 checkpoint"
MERGE = "for a QLoRA training, merge the adapter into the BF16 base model"
# By quant_method, as transformers' ``QuantizationMethod`` spells it, or our name: the way back.
REMEDIES = {
    "mlx": f"{ORIGINAL}, or dequantize this one: "
    "mlx_lm.convert --hf-path {0} --mlx-path OUTPUT --dequantize",
    "bitsandbytes": f"{ORIGINAL}, or dequantize this one: model.dequantize() in transformers, then "
    f"save_pretrained; {MERGE}",
    "gptq": f"{ORIGINAL}, as GPTQ's integers cannot become a GGUF's without loss",
    "awq": f"{ORIGINAL}, as AWQ's integers cannot become a GGUF's without loss",
    "compressed-tensors": f"{ORIGINAL}, or load this one with "
    "CompressedTensorsConfig(run_compressed=False) in transformers, and save it in bfloat16",
    "torchao": f"{ORIGINAL}, or dequantize this one: model.dequantize() in transformers, then "
    "save_pretrained",
    "fp8": f"{ORIGINAL}, or load this one with FineGrainedFP8Config(dequantize=True) in "
    "transformers, and save it in bfloat16",
    "modelopt": f"{ORIGINAL}, as ModelOpt's exports are for other engines",
}
# How names of tensors end that go with packed weights, and what packs so. The first that is
# found counts, where config.json does not say which it is.
MARKS = {
    "absmax": "bitsandbytes", "SCB": "bitsandbytes",
    "g_idx": "gptq", "qweight": "awq", "qzeros": "awq",
    "weight_packed": "compressed-tensors", "weight_zero_point": "compressed-tensors",
    "_weight_qdata": "torchao", "biases": "mlx", "weight_scale_inv": "fp8", "weight_scale": "fp8",
}  # fmt: skip
FP8 = ("F8_E4M3", "F8_E5M2")
SCALES_IN = ("BF16", "F16", "F32", "F8_E8M0")
# How names end of the scales of an FP8 matrix, and of those of activations and of the cache, which
# nothing needs.
SCALES = ("_scale_inv", "_scale")
ACTIVATIONS = (
    ".activation_scale", "_activation_scale", ".input_scale", "_input_scale", ".output_scale",
    ".k_scale", ".v_scale", ".q_scale", ".prob_output_scale",
)  # fmt: skip
DEQUANTIZED = "{} matrices in FP8 are multiplied out by their scales"
UNSCALED = "{} tensors are in FP8 without scales, and are read as they stand"
PACKED = ("U8", "I8", "U32", "I32", "F8_E4M3", "F8_E5M2", "F8_E8M0")


def with_scales(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Bring FP8 matrices (E4M3, E5M2) and their scales together; a note counts them.

    A scale is the whole matrix's, a row's, or a block's of ``weight_block_size``, and multiplies,
    as in llama.cpp's ``dequant_simple`` (conversion/base.py, commit 0c1e57098); of a stack of
    experts, each matrix has such scales. A matrix whose scales are of another shape stays as it is.
    """
    found = dict(tensors)
    count = 0
    for name, info in tensors.items():
        scale = next((tensors[name + end] for end in SCALES if name + end in tensors), None)
        if info.dtype not in FP8 or scale is None or not (fit := _fit(config, info, scale)):
            continue
        block, shape = fit
        found[name] = replace(info, scale=replace(scale, shape=shape), block=block)
        del found[scale.name]
        count += 1
    if not count:
        return found, ()
    found = {name: info for name, info in found.items() if not name.endswith(ACTIVATIONS)}
    return found, (DEQUANTIZED.format(count),)


def _fit(
    config: Mapping[str, Any], info: TensorInfo, scale: TensorInfo
) -> tuple[tuple[int, int], tuple[int, ...]] | None:
    """Return which rows and columns have one scale together, and the scales as blocks of them.

    Their shape is (blocks below another, blocks beside another), with the experts before it in a
    stack that does not have one scale alone. None where that is not clear.
    """
    if len(info.shape) not in (2, 3) or 0 in info.shape or scale.dtype not in SCALES_IN:
        return None
    if ".switch_mlp." in info.name:  # MLX has no tensors in FP8
        return None
    *stack, rows, columns = info.shape
    if set(scale.shape) <= {1}:
        return (math.prod(stack) * rows, columns), (1, 1)
    if stack and scale.shape in ((*stack,), (*stack, 1), (*stack, 1, 1)):
        return (rows, columns), (*stack, 1, 1)
    if scale.shape in ((*stack, rows), (*stack, rows, 1)):
        return (1, columns), (*stack, rows, 1)
    if not (block := _block_size(config)):
        return None
    blocks = -(-rows // block[0]), -(-columns // block[1])
    return (block, (*stack, *blocks)) if scale.shape == (*stack, *blocks) else None


def _block_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the size that transformers' or compressed-tensors' config gives blocks."""
    about = config.get("quantization_config")
    size = about.get("weight_block_size") if isinstance(about, dict) else None
    groups = about.get("config_groups") if isinstance(about, dict) else None
    if size is None and isinstance(groups, dict) and len(groups) == 1:
        weights = next(iter(groups.values()))
        weights = weights.get("weights") if isinstance(weights, dict) else None
        size = weights.get("block_structure") if isinstance(weights, dict) else None
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)):
        return None
    high, wide = size
    return (high, wide) if min(size) > 0 else None


def quantization_notes(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> tuple[str, ...]:
    """Refuse weights that are quantized, or note that config.json says so and they are not.

    Raises:
        UnsupportedError: they are; the message says by what, and the way back.

    """
    said = _said(folder, config)
    mark = _mark(tensors)
    all_packed = [info for info in tensors.values() if _is_packed(info)]
    if all_packed and not said and not mark and all(info.dtype in FP8 for info in all_packed):
        return (UNSCALED.format(len(all_packed)),)  # a cast: nothing belongs to them
    packed = next(iter(all_packed), None)
    if packed is None and mark:
        packed = tensors[mark]
    if packed is None and any(info.scale for info in tensors.values()):
        return ()
    if packed is None:
        note = f"config.json speaks of {said}, and no weight is quantized: quantization_config is "
        return (f"{note}left over from training, and is not used",) if said else ()
    method = said if said in REMEDIES else MARKS.get(_ending(mark)) or said
    remedy = REMEDIES.get(method, f"{ORIGINAL}, or dequantize this one with the tool that made it")
    raise UnsupportedError(
        f"{folder}: the checkpoint is quantized already ({_named(method or 'unknown method')}: "
        f"{packed.name!r} holds {packed.dtype}), and quantizing twice loses quality; "
        f"{remedy.format(folder)}"
    )


def _said(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the method that the folder's configs name; empty where they name none."""
    for key in ("quantization_config", "quantization", "compression_config"):
        about = config.get(key)
        if not isinstance(about, dict) or not about:
            if about:
                return "unknown method"
            continue
        if method := about.get("quant_method"):
            return str(method)
        return "mlx" if {"group_size", "bits"} <= about.keys() else "unknown method"
    return "modelopt" if (folder / "hf_quant_config.json").is_file() else ""


def _is_packed(info: TensorInfo) -> bool:
    return (
        info.dtype in PACKED
        and info.scale is None
        and info.name.endswith((".weight", ".qweight", "_packed", "_proj"))
    )


def _mark(names: Iterable[str]) -> str:
    endings = {_ending(name): name for name in names}
    return next((endings[mark] for mark in MARKS if mark in endings), "")


def _ending(name: str) -> str:
    return name.rpartition(".")[2]


def _named(method: str) -> str:
    return {"mlx": "MLX", "gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8"}.get(method, method)
