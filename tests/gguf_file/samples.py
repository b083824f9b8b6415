"""A small GGUF file with a value of every type and a few tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import Layout, Metadata, TensorSpec, Value, ValueType, lay_out

T = ValueType
METADATA: Metadata = {
    "general.architecture": Value(T.STRING, "lfm2"),
    "u8": Value(T.UINT8, 255),
    "i8": Value(T.INT8, -128),
    "u16": Value(T.UINT16, 65535),
    "i16": Value(T.INT16, -32768),
    "u32": Value(T.UINT32, 2**32 - 1),
    "i32": Value(T.INT32, -(2**31)),
    "u64": Value(T.UINT64, 2**64 - 1),
    "i64": Value(T.INT64, -(2**63)),
    "f32": Value(T.FLOAT32, 0.25),
    "f64": Value(T.FLOAT64, 0.1),
    "yes": Value(T.BOOL, True),
    "text": Value(T.STRING, "Straße 🙂"),
    "empty text": Value(T.STRING, ""),
    "numbers": Value(T.ARRAY, [1, -2, 3], T.INT32),
    "floats": Value(T.ARRAY, [0.5, -1.5], T.FLOAT32),
    "flags": Value(T.ARRAY, [True, False], T.BOOL),
    "texts": Value(T.ARRAY, ["a", "", "é"], T.STRING),
}
TENSORS = (
    TensorSpec("blk.0.attn_v.weight", GGMLType.Q4_K, (3, 256)),
    TensorSpec("one.weight", GGMLType.F32, (5,)),
    TensorSpec("half.weight", GGMLType.F16, (2, 3, 7)),
    TensorSpec("brain.weight", GGMLType.BF16, (4, 1)),
    TensorSpec("blk.0.attn_k.weight", GGMLType.Q8_0, (2, 64)),
)


def write(path: Path, alignment: int = 32) -> tuple[Layout, dict[str, bytes]]:
    """Write the file; returns what was laid out, and the random bytes of each tensor."""
    metadata = dict(METADATA)
    if alignment != 32:
        metadata["general.alignment"] = Value(T.UINT32, alignment)
    layout = lay_out(metadata, TENSORS)
    rng = np.random.default_rng(0)
    contents = {}
    with layout.create(path) as partial, partial.open("r+b") as file:
        for tensor, offset in zip(TENSORS, layout.offsets, strict=True):
            contents[tensor.name] = rng.bytes(tensor.nbytes)
            file.seek(offset)
            file.write(contents[tensor.name])
    return layout, contents
