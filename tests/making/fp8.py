"""Checkpoints in FP8, as transformers, compressed-tensors and ModelOpt save them.

The bits are random; what they stand for is told by torch (golden/make_fp8.py).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.making.checkpoints import (
    CASES,
    MOE_CASES,
    Case,
    stored,
    tokenizer,
    weights,
    write_json,
    write_raw_safetensors,
)

BLOCK = (64, 96)  # divides the rows, not the columns


@dataclass(frozen=True)
class Fp8:
    """How a checkpoint's matrices are stored: their type, their scales, what config.json says."""

    base: Case
    about: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "F8_E4M3"
    kind: str = "block"  # of scales: block, row, matrix
    end: str = "_scale_inv"
    scale_dtype: str = "F32"
    beside: tuple[str, ...] = ()  # scales that nothing needs


def _compressed(**weights: Any) -> dict[str, Any]:
    weights |= {"type": "float", "num_bits": 8}
    return {"quant_method": "compressed-tensors", "format": "float-quantized",
            "config_groups": {"group_0": {"weights": weights}}}  # fmt: skip


FINEGRAINED = {"quant_method": "fp8", "weight_block_size": list(BLOCK)}
DENSE, MOE = CASES["LFM2-rows-of-256"], MOE_CASES["LFM2-8-experts"]
FP8_CASES = {
    "LFM2-E5M2-blocks": Fp8(DENSE, FINEGRAINED, dtype="F8_E5M2", beside=("activation_scale",)),
    "LFM2-E8M0-scales": Fp8(DENSE, FINEGRAINED, scale_dtype="F8_E8M0"),
    "LFM2-compressed-rows": Fp8(
        DENSE, _compressed(strategy="channel"), kind="row", end="_scale", scale_dtype="BF16"
    ),
    "LFM2-compressed-blocks": Fp8(
        DENSE, _compressed(strategy="block", block_structure=list(BLOCK)), end="_scale"
    ),
    "LFM2-modelopt": Fp8(
        DENSE, {"quant_method": "modelopt"}, kind="matrix", end="_scale",
        beside=("input_scale", "k_scale", "v_scale"),
    ),
    "LFM2-8-experts-blocks": Fp8(MOE, FINEGRAINED),
}  # fmt: skip
Stored = dict[str, tuple[str, tuple[int, ...], bytes]]


def make_fp8(case: Fp8, folder: Path) -> Path:
    """Write a whole checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(case.base.config) | ({"quantization_config": case.about} if case.about else {})
    write_json(folder / "config.json", config)
    for name, content in tokenizer().items():
        write_json(folder / name, content)
    write(folder / "model.safetensors", fp8_tensors(case))
    return folder


def fp8_tensors(case: Fp8) -> Stored:
    """Every tensor: dtype, shape and bytes; of matrices the scales, too."""
    found: Stored = {}
    for i, (name, values) in enumerate(weights(case.base.config).items()):
        is_matrix = values.ndim == 2 and ("proj" in name or ".w" in name)
        if not is_matrix:
            found[name] = ("BF16", values.shape, stored(values, "BF16"))
            continue
        found[name] = (case.dtype, values.shape, random_bits(i, values.shape).tobytes())
        shape = {
            "block": tuple(-(-n // b) for n, b in zip(values.shape, BLOCK, strict=True)),
            "row": (values.shape[0], 1),
            "matrix": (),
        }[case.kind]
        found[name + case.end] = (case.scale_dtype, shape, scales(i, shape, case.scale_dtype))
        for other in case.beside:
            found[f"{name.removesuffix('.weight')}.{other}"] = ("F32", (), bytes(4))
    return found


def random_bits(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Bits of either type that stand for numbers: neither NaN nor infinity."""
    bits = np.random.RandomState(seed).randint(0, 0x78, shape).astype(np.uint8)
    return bits | (np.random.RandomState(seed + 1).randint(0, 2, shape) << 7).astype(np.uint8)


def scales(seed: int, shape: tuple[int, ...], dtype: str) -> bytes:
    """Scales that leave no two blocks alike."""
    random = np.random.RandomState(1000 + seed)
    if dtype == "F8_E8M0":
        return random.randint(110, 120, shape or (1,)).astype(np.uint8).tobytes()
    return stored(random.uniform(1e-5, 1e-3, shape or (1,)).astype(np.float32), dtype)


def write(path: Path, tensors: Stored) -> None:
    """Write a safetensors file of tensors of any types."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        begin, data = len(data), data + raw
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
    write_raw_safetensors(path, json.dumps(header).encode(), data)


def read(path: Path) -> Stored:
    """Read a safetensors file: what :func:`write` took."""
    raw = path.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + n])
    header.pop("__metadata__", None)
    found: Stored = {}
    for name, info in header.items():
        first, last = info["data_offsets"]
        found[name] = (info["dtype"], tuple(info["shape"]), raw[8 + n + first : 8 + n + last])
    return found
