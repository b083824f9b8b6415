"""What values a quantized block can hold, and its bytes in pieces.

A weight of every type here is ``(d * sc) * code[q] - dmin * m``: levels ``q``, integer
sub-scales ``sc`` and ``m`` of a sub-block, and the float16 ``d`` and ``dmin`` of a super-block.
The layouts are those of :mod:`lfm2gguf.quants`, where the bits are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, IQ4_VALUES

Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[Any]  # uint8; NumPy types shifts of it as any integer
Blocks: TypeAlias = npt.NDArray[Any]


@dataclass
class Levels:
    """A quantized matrix (rows, columns) in pieces, columns first, as the searches want it.

    ``q`` is (columns, rows) of indices into the grid's codes; ``sc`` and ``m`` are
    (columns / sub-block, rows), ``d`` and ``dmin`` (columns / super-block, rows), all float32.
    ``m`` and ``dmin`` are None for a grid without a minimum.
    """

    q: npt.NDArray[np.uint8]
    d: Floats
    sc: Floats
    dmin: Floats | None = None
    m: Floats | None = None

    def of(self, columns: slice, grid: Grid) -> Levels:
        """Return a view of some super-blocks of columns."""
        sub = slice(columns.start // grid.sub_block, columns.stop // grid.sub_block)
        whole = slice(columns.start // grid.super_block, columns.stop // grid.super_block)
        return Levels(
            self.q[columns],
            self.d[whole],
            self.sc[sub],
            None if self.dmin is None else self.dmin[whole],
            None if self.m is None else self.m[sub],
        )


@dataclass(frozen=True)
class Grid:
    """The values of a type, and how its blocks are taken apart and put together.

    ``scales`` is the range of the integer sub-scales, None where a block has only ``d``.
    ``unpack(blocks)`` gives ``q`` (n, super-block) and, where the type has them, ``sc`` and ``m``
    (n, sub-blocks); ``pack(blocks, q, sc, m)`` stores them.
    """

    sub_block: int
    super_block: int
    codes: Floats
    scales: tuple[int, int] | None
    minimum: str | None  # the field of dmin
    unpack: Callable[[Blocks], tuple[Bytes, Any, Any]]
    pack: Callable[[Blocks, Bytes, Any, Any], None]
    minimum_sign: int = 1  # -1 where the field is what is added

    @property
    def sub_blocks(self) -> int:
        """Sub-blocks of a super-block."""
        return self.super_block // self.sub_block

    @cached_property
    def uniform(self) -> bool:
        """Whether the codes are consecutive integers."""
        return bool((np.diff(self.codes) == 1).all())

    def nearest(self, values: Floats) -> npt.NDArray[np.uint8]:
        """Return the index of the code nearest to each value."""
        if self.uniform:
            found = np.rint(values - self.codes[0])
            clipped: npt.NDArray[np.uint8] = np.clip(found, 0, len(self.codes) - 1).astype(np.uint8)
            return clipped
        index: npt.NDArray[np.uint8] = np.searchsorted(self.middles, values).astype(np.uint8)
        return index

    @cached_property
    def middles(self) -> Floats:
        """What lies between the codes."""
        middles: Floats = (self.codes[1:] + self.codes[:-1]) / np.float32(2)
        return middles


def take_apart(type: GGMLType, data: Bytes) -> Levels:
    """Return the pieces of quantized rows, uint8 (rows, row bytes)."""
    grid, rows = GRIDS[type], len(data)
    blocks = np.ascontiguousarray(data).reshape(-1).view(CODECS[type].layout)
    q, sc, m = grid.unpack(blocks)

    def across(a: npt.NDArray[Any], dtype: Any = np.float32) -> npt.NDArray[Any]:
        return np.ascontiguousarray(a.reshape(rows, -1).T, dtype)

    d = across(blocks["d"])
    ones = np.ones_like(d)
    if grid.minimum is None:
        return Levels(across(q, np.uint8), d, ones if sc is None else across(sc))
    dmin = across(blocks[grid.minimum]) * np.float32(grid.minimum_sign)
    if sc is None:
        return Levels(across(q, np.uint8), d, ones, dmin, ones.copy())
    return Levels(across(q, np.uint8), d, across(sc), dmin, across(m))


def put_together(type: GGMLType, levels: Levels) -> Bytes:
    """Return the rows' bytes, uint8 (rows, row bytes)."""
    grid, rows = GRIDS[type], levels.q.shape[1]

    def back(a: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
        return np.ascontiguousarray(a.T).reshape(-1, width)

    blocks = np.zeros(levels.d.size, CODECS[type].layout)
    blocks["d"] = back(levels.d, 1)[:, 0]
    if grid.minimum is not None:
        assert levels.dmin is not None
        blocks[grid.minimum] = back(levels.dmin, 1)[:, 0] * np.float32(grid.minimum_sign)
    q = back(levels.q, grid.super_block)
    per = grid.sub_blocks
    sc = None if grid.scales is None else back(levels.sc, per).astype(np.int32)
    m = None if levels.m is None or grid.scales is None else back(levels.m, per).astype(np.int32)
    grid.pack(blocks, q, sc, m)
    return blocks.view(np.uint8).reshape(rows, -1)


def values(grid: Grid, levels: Levels) -> Floats:
    """Return the weights, float32 (columns, rows), as the type's decoder computes them."""
    scale, offset = steps(grid, levels)
    y: Floats = grid.codes[levels.q] * np.repeat(scale, grid.sub_block, axis=0)
    if offset is not None:
        y -= np.repeat(offset, grid.sub_block, axis=0)
    return y


def steps(grid: Grid, levels: Levels) -> tuple[Floats, Floats | None]:
    """Return what a level is worth in each sub-block, and what is taken off: ``d*sc, dmin*m``."""
    scale: Floats = np.repeat(levels.d, grid.sub_blocks, axis=0) * levels.sc
    if levels.dmin is None or levels.m is None:
        return scale, None
    return scale, np.repeat(levels.dmin, grid.sub_blocks, axis=0) * levels.m


# --- how each type's blocks are taken apart and put together (n blocks) ---


def _nibbles(qs: Bytes, width: int) -> Bytes:
    """Levels (n, 2 * bytes): low nibbles of ``width`` bytes, then their high ones, and so on."""
    parts = qs.reshape(len(qs), -1, 1, width)
    return np.concatenate([parts & 15, parts >> 4], axis=2).reshape(len(qs), -1)


def _to_nibbles(q: Bytes, width: int) -> Bytes:
    parts = q.reshape(len(q), -1, 2, width)
    return (parts[:, :, 0] & 15 | parts[:, :, 1] << 4).reshape(len(q), -1)


def _pairs(qs: Bytes) -> Bytes:
    """Levels (n, 256) of 2 bits: four levels of a byte are 32 weights apart."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    return (qs.reshape(-1, 2, 1, 32) >> shifts & 3).reshape(len(qs), -1)


def _to_pairs(q: Bytes) -> Bytes:
    p = q.reshape(-1, 2, 4, 32) & 3
    return (p[:, :, 0] | p[:, :, 1] << 2 | p[:, :, 2] << 4 | p[:, :, 3] << 6).reshape(len(q), -1)


def _planes(bits: Bytes) -> Bytes:
    """Bits (n, 256) from a byte for each of 32 weights: bit i is that of sub-block i."""
    return np.unpackbits(bits[:, None], axis=1, bitorder="little").reshape(len(bits), -1)


def _to_planes(bits: Bytes) -> Bytes:
    return np.packbits(bits.reshape(-1, 8, 32), axis=1, bitorder="little")[:, 0]


def _unpack_k(b: Blocks) -> tuple[Bytes, Any, Any]:
    s = b["scales"]
    sc, m, low = s[:, :4], s[:, 4:8], s[:, 8:]
    scales = np.concatenate([sc & 63, (low & 15) | (sc >> 6) << 4], axis=1)
    minima = np.concatenate([m & 63, (low >> 4) | (m >> 6) << 4], axis=1)
    q = _nibbles(b["qs"], 32)
    if "qh" in (b.dtype.names or ()):
        q = q | _planes(b["qh"]) << 4
    return q, scales, minima


def _pack_k(b: Blocks, q: Bytes, sc: Any, m: Any) -> None:
    sc, m = sc.astype(np.uint8), m.astype(np.uint8)
    b["scales"][:, :4] = sc[:, :4] | (sc[:, 4:] >> 4) << 6
    b["scales"][:, 4:8] = m[:, :4] | (m[:, 4:] >> 4) << 6
    b["scales"][:, 8:] = (sc[:, 4:] & 15) | (m[:, 4:] & 15) << 4
    b["qs"] = _to_nibbles(q, 32)
    if "qh" in (b.dtype.names or ()):
        b["qh"] = _to_planes(q >> 4)


def _unpack_q2(b: Blocks) -> tuple[Bytes, Any, Any]:
    return _pairs(b["qs"]), b["scales"] & 15, b["scales"] >> 4


def _pack_q2(b: Blocks, q: Bytes, sc: Any, m: Any) -> None:
    b["scales"] = sc.astype(np.uint8) | m.astype(np.uint8) << 4
    b["qs"] = _to_pairs(q)


def _unpack_q3(b: Blocks) -> tuple[Bytes, Any, Any]:
    s = b["scales"]
    low = np.concatenate([s[:, :8] & 15, s[:, :8] >> 4], axis=1)
    high = np.concatenate([s[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    return _pairs(b["qs"]) | _planes(b["hmask"]) << 2, (low | high << 4).astype(np.int32) - 32, None


def _pack_q3(b: Blocks, q: Bytes, sc: Any, m: Any) -> None:
    s = (sc + 32).astype(np.uint8)
    b["scales"][:, :8] = s[:, :8] & 15 | (s[:, 8:] & 15) << 4
    high = (s >> 4).reshape(-1, 4, 4)
    b["scales"][:, 8:] = high[:, 0] | high[:, 1] << 2 | high[:, 2] << 4 | high[:, 3] << 6
    b["qs"], b["hmask"] = _to_pairs(q), _to_planes(q >> 2)


def _unpack_q6(b: Blocks) -> tuple[Bytes, Any, Any]:
    nibbles = b["ql"].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    low, high = nibbles.reshape(-1, 256), _pairs(b["qh"])
    return low | high << 4, b["scales"].astype(np.int32), None


def _pack_q6(b: Blocks, q: Bytes, sc: Any, m: Any) -> None:
    p = (q & 15).reshape(-1, 2, 4, 32)
    low = np.stack([p[:, :, 0] | p[:, :, 2] << 4, p[:, :, 1] | p[:, :, 3] << 4], axis=2)
    b["ql"], b["qh"] = low.reshape(-1, 128), _to_pairs(q >> 4)
    b["scales"] = sc


def _unpack_iq4_xs(b: Blocks) -> tuple[Bytes, Any, Any]:
    low = np.stack([b["scales_l"] & 15, b["scales_l"] >> 4], axis=2).reshape(-1, 8)
    high = b["scales_h"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    return _nibbles(b["qs"], 16), low.astype(np.int32) + (high.astype(np.int32) << 4) - 32, None


def _pack_iq4_xs(b: Blocks, q: Bytes, sc: Any, m: Any) -> None:
    s = sc + 32
    b["scales_l"] = s[:, 0::2] & 15 | (s[:, 1::2] & 15) << 4
    b["scales_h"] = ((s >> 4) << np.arange(0, 16, 2)).sum(axis=1)
    b["qs"] = _to_nibbles(q, 16)


def _unpack_block(b: Blocks) -> tuple[Bytes, Any, Any]:
    q = _nibbles(b["qs"], 16)
    if "qh" in (b.dtype.names or ()):
        q = q | np.unpackbits(np.ascontiguousarray(b["qh"]), axis=1, bitorder="little") << 4
    return q, None, None


def _pack_block(b: Blocks, q: Bytes, sc: Any, m: Any) -> None:
    b["qs"] = _to_nibbles(q, 16)
    if "qh" in (b.dtype.names or ()):
        b["qh"] = np.packbits(q >> 4, axis=1, bitorder="little")


def _unpack_q8(b: Blocks) -> tuple[Bytes, Any, Any]:
    return (b["qs"].astype(np.int16) + 128).astype(np.uint8), None, None


def _pack_q8(b: Blocks, q: Bytes, sc: Any, m: Any) -> None:
    b["qs"] = (q.astype(np.int16) - 128).astype(np.int8)


def _codes(first: int, count: int) -> Floats:
    return np.arange(first, first + count, dtype=np.float32)


_BLOCK = (_unpack_block, _pack_block)

GRIDS = {
    GGMLType.Q2_K: Grid(16, 256, _codes(0, 4), (0, 15), "dmin", _unpack_q2, _pack_q2),
    GGMLType.Q3_K: Grid(16, 256, _codes(-4, 8), (-32, 31), None, _unpack_q3, _pack_q3),
    GGMLType.Q4_K: Grid(32, 256, _codes(0, 16), (0, 63), "dmin", _unpack_k, _pack_k),
    GGMLType.Q5_K: Grid(32, 256, _codes(0, 32), (0, 63), "dmin", _unpack_k, _pack_k),
    GGMLType.Q6_K: Grid(16, 256, _codes(-32, 64), (-128, 127), None, _unpack_q6, _pack_q6),
    GGMLType.IQ4_XS: Grid(32, 256, IQ4_VALUES, (-32, 31), None, _unpack_iq4_xs, _pack_iq4_xs),
    GGMLType.Q4_0: Grid(32, 32, _codes(-8, 16), None, None, *_BLOCK),
    GGMLType.Q5_0: Grid(32, 32, _codes(-16, 32), None, None, *_BLOCK),
    GGMLType.Q4_1: Grid(32, 32, _codes(0, 16), None, "m", *_BLOCK, minimum_sign=-1),
    GGMLType.Q5_1: Grid(32, 32, _codes(0, 32), None, "m", *_BLOCK, minimum_sign=-1),
    GGMLType.Q8_0: Grid(32, 32, _codes(-128, 256), None, None, _unpack_q8, _pack_q8),
    GGMLType.IQ4_NL: Grid(32, 32, IQ4_VALUES, None, None, *_BLOCK),
}
