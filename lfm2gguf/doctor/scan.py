"""Reads every weight: NaN and infinity, rows of zeros, rows that are constant.

Memory is one chunk. Plain types are judged by their bits: the largest magnitude says whether
all are finite, and a row is read for sameness only where its beginning is the same. Of a
quantized tensor the blocks' scales are read; a row is decoded only where its first block is
constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from lfm2gguf.checkpoint import TokenType
from lfm2gguf.doctor.finding import Finding, Severity
from lfm2gguf.doctor.subject import Subject, Weights
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize
from lfm2gguf.storage import SAFETENSORS

CHUNK = 1 << 19  # weights
# Bits of one number, and those that are all ones in NaN and infinity.
PLAIN: dict[GGMLType, tuple[type[np.unsignedinteger[Any]], int]] = {
    GGMLType.F32: (np.uint32, 0x7F800000),
    GGMLType.F16: (np.uint16, 0x7C00),
    GGMLType.BF16: (np.uint16, 0x7F80),
}
GLANCE = 8  # numbers of a row that are looked at first
EMBEDDINGS = ("token_embd.weight", "output.weight", "embed_tokens.weight", "lm_head.weight")

Rows = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.unsignedinteger[Any]]


@dataclass
class Count:
    """Rows of one kind: how many, the first, and those that belong to tokens in use."""

    n: int = 0
    first: int = -1
    used: int = 0
    in_use: Rows | None = field(default=None, repr=False)

    def add(self, start: int, rows: Rows) -> None:
        """Count the rows that are true; the first of them is row ``start`` of the tensor."""
        if not rows.any():
            return
        self.first = start + int(rows.argmax()) if not self.n else self.first
        self.n += int(rows.sum())
        known = None if self.in_use is None else self.in_use[start : start + len(rows)]
        self.used += int(rows.sum() if known is None else (rows[: len(known)] & known).sum())


def weights(subject: Subject) -> Iterator[Finding]:
    """Examine every tensor."""
    in_use = np.array([type != TokenType.UNUSED.value for _, type in subject.tokens], bool)
    unread: dict[str, list[str]] = {}
    for tensor in subject.weights:
        if tensor.type is None or not _readable(tensor.type):
            unread.setdefault(tensor.dtype, []).append(tensor.name)
            continue
        embedding = tensor.name.endswith(EMBEDDINGS)
        yield from _examine(tensor, in_use if embedding and len(in_use) else None)
    for dtype, names in unread.items():
        yield _unread(subject, dtype, names)


def _examine(tensor: Weights, in_use: Rows | None) -> Iterator[Finding]:
    bad, zero, constant = Count(), Count(in_use=in_use), Count(in_use=in_use)
    for start, rows in tensor.rows(CHUNK):
        assert tensor.type is not None
        not_finite, zeros, constants = classify(np.ascontiguousarray(rows), tensor.type)
        bad.add(start, not_finite)
        zero.add(start, zeros)
        constant.add(start, constants & ~zeros)
    n = int(np.prod(tensor.shape[:-1], dtype=np.int64))
    vector, bias = len(tensor.shape) == 1, tensor.name.endswith(("bias", "_b"))
    if bad.n:
        yield Finding(
            "not-finite", Severity.ERROR, tensor.name,
            f"{_of(bad, n)} NaN or infinity" if not vector else "holds NaN or infinity",
            "the training diverged, or the file is damaged: compare with the original, and "
            "take an earlier checkpoint",
        )  # fmt: skip
    if zero.n == n and n:
        yield Finding(
            "zero-tensor", Severity.NOTE if bias else Severity.ERROR, tensor.name, "is all zero",
            "nothing, if it was never trained" if bias else
            "it was not saved or not loaded: save the checkpoint again, and convert that",
        )  # fmt: skip
    elif zero.n:
        yield _rows("zero-rows", tensor.name, zero, n, "nothing but zeros")
    if vector and constant.n and tensor.shape[0] > 1:
        yield Finding(
            "constant-tensor", Severity.NOTE, tensor.name, "has the same value everywhere",
            "nothing, if it was never trained",
        )  # fmt: skip
    elif constant.n and not vector:
        yield _rows("constant-rows", tensor.name, constant, n, "one value throughout")


def _rows(id: str, where: str, count: Count, n: int, what: str) -> Finding:
    if not count.used:
        unused = "nothing: no token of the vocabulary uses them"
        return Finding(id, Severity.NOTE, where, f"{_of(count, n)} {what}", unused)
    remedy = "compare with the original checkpoint; if it has them too, they are the model's own"
    return Finding(id, Severity.WARNING, where, f"{_of(count, n)} {what}", remedy)


def _of(count: Count, n: int) -> str:
    return f"{count.n} of {n} rows (the first is row {count.first}) hold"


def _unread(subject: Subject, dtype: str, names: list[str]) -> Finding:
    where = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
    if subject.kind == "checkpoint" and SAFETENSORS[dtype].widen is None:
        what = f"is {dtype}; only BF16, F16 and F32 can be converted"
        return Finding("dtype", Severity.ERROR, where, what, "save the model in bfloat16")
    what = f"is {dtype}, which was not read: NaN and zero rows in it would not be seen"
    remedy = "examine the GGUF file" if subject.kind == "checkpoint" else "examine the checkpoint"
    return Finding("not-examined", Severity.NOTE, where, what, f"{remedy} instead")


def classify(rows: Bytes, type: GGMLType) -> tuple[Rows, Rows, Rows]:
    """Judge each row of (n, row bytes): whether it is not finite, zero, constant."""
    if type in PLAIN:
        return _plain(rows, type)
    if type in CODECS:
        return _blocks(rows, type)
    values = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[type.name])
    return _plain(np.ascontiguousarray(values, np.float32).view(np.uint8), GGMLType.F32)


def _plain(rows: Bytes, type: GGMLType) -> tuple[Rows, Rows, Rows]:
    dtype, exponent = PLAIN[type]
    bits = rows.view(dtype)
    magnitudes: Bits = np.left_shift(
        bits, 1, dtype=dtype
    )  # without the sign, a number's bits grow with its magnitude
    bad = np.zeros(len(rows), bool)
    if magnitudes.max() >= exponent << 1:
        bad = magnitudes.max(axis=1) >= exponent << 1
    zero = _rows_where(magnitudes, lambda x: x == 0)
    return bad, zero, _rows_where(bits, lambda x: x == x[:, :1]) & ~bad


def _rows_where(x: Bits, test: Callable[[Bits], Rows]) -> Rows:
    """Find rows of which every number passes; the whole is read only if the beginning passes."""
    found: Rows = np.all(test(x[:, :GLANCE]), axis=1)
    candidates = np.flatnonzero(found)
    found[candidates] = test(x[candidates]).all(axis=1)
    return found


def _blocks(rows: Bytes, type: GGMLType) -> tuple[Rows, Rows, Rows]:
    codec = CODECS[type]
    blocks = rows.view(codec.layout)
    bad = np.zeros(len(rows), bool)
    for name in codec.scales:
        scale = blocks[name]
        finite = np.isfinite(scale) if scale.dtype.kind == "f" else scale & 0x7F80 != 0x7F80
        bad |= ~finite.reshape(len(rows), -1).all(axis=1)
    first = dequantize(rows[:, : type.type_size], type, (len(rows), type.block_size))
    candidates = np.flatnonzero((first == first[:, :1]).all(axis=1) & ~bad)
    zero, constant = np.zeros_like(bad), np.zeros_like(bad)
    if candidates.size:
        width = rows.shape[1] // type.type_size * type.block_size
        values = dequantize(rows[candidates], type, (len(candidates), width))
        zero[candidates] = (values == 0).all(axis=1)
        constant[candidates] = (values == values[:, :1]).all(axis=1)
    return bad, zero, constant


def _readable(type: GGMLType) -> bool:
    return type in CODECS or hasattr(gguf.quants, type.name)
