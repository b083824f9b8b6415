"""What a format is to the rest of the package: a block layout and two kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType

Floats = npt.NDArray[np.float32]
Blocks = npt.NDArray[Any]


@dataclass(frozen=True)
class Codec:
    """A format: how its blocks lie in memory, and the kernels that write and read them.

    ``encode(x, out)`` fills the blocks ``out`` (n,) from the weights ``x`` (n, block size),
    float32, C-contiguous, finite. ``decode(blocks, out)`` is the way back. Both see one
    chunk at a time, and a block's bytes depend on nothing but that block's weights.
    ``scales`` names the float fields that have to be finite for the block to be usable.
    """

    type: GGMLType
    layout: np.dtype[Any]
    encode: Callable[[Floats, Blocks], None]
    decode: Callable[[Blocks, Floats], None]
    scales: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.layout.itemsize == self.type.type_size, self.type


def nearest_int(x: Floats) -> npt.NDArray[np.int32]:
    """``nearest_int`` of ggml-quants.c, bit for bit; overwrites ``x``.

    Half to even for abs(x) < 2**22. Beyond that, and for NaN and infinity, whatever the bits
    of the sum say, which is what ggml writes, on every machine.
    """
    x += np.float32(12582912.0)  # 1.5 * 2**23: the integer now stands in the low mantissa bits
    bits = x.view(np.int32)
    bits &= 0x007FFFFF
    bits -= 0x00400000
    return bits
