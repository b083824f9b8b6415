"""What a format is to the rest of the package, and what all kernels share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.ggml import GGMLType

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Blocks = npt.NDArray[Any]

CACHE_LINE = 64

# Sub-blocks a kernel sees at once, and so the length of the rows it works on. Shorter ones
# drown in the cost of NumPy's calls; longer ones leave the cache.
ROW = 4096

_LOCAL = threading.local()


@dataclass(frozen=True)
class Weighting:
    """How ggml weighs the errors of a type's weights x by their importance q.

    The weight is ``q * sqrt(variance(sum of x², their number) + x²)``, the sum being over the
    block or, with ``of_row``, over the row; without ``variance`` it is ``q`` alone.
    """

    variance: Callable[[Floats, int], Floats] | None
    of_row: bool = False


def mean(total: Floats, n: int) -> Floats:
    """Return the variance for :class:`Weighting`."""
    return total / np.float32(n)


def twice_mean(total: Floats, n: int) -> Floats:
    """Return the variance for :class:`Weighting`."""
    return np.float32(2) * total / np.float32(n)


def field_of(blocks: Blocks, name: str) -> npt.NDArray[Any]:
    """Return a field of the blocks as stored."""
    values: npt.NDArray[Any] = blocks[name]
    return values


@dataclass(frozen=True)
class Codec:
    """A format: how its blocks lie in memory, and the kernels that write and read them.

    ``encode(x, out, weights)`` fills the blocks ``out`` (n,) from the weights ``x`` (n, block
    size), float32, C-contiguous, finite; ``weights`` of their squared errors, like ``x``, are
    given where there is an importance matrix, made of it as ``weighting`` says (None: the
    type does not look at importance), and are None else. ``decode(blocks, out)`` is the way
    back. Both see one chunk at a time, and a block's bytes depend on nothing but that block's
    weights. ``compiled`` names the module of :mod:`lfm2gguf.quants.compiled` that has the same
    kernels compiled. ``sub_block`` is how many weights share a scale: the height of the columns a
    kernel sees. ``scales`` names the float fields that have to be finite for the block to be
    usable, and ``read_scale`` is how to get at them. ``needs_importance``: ggml has no way to
    write the type without.
    """

    type: GGMLType
    layout: np.dtype[Any]
    sub_block: int
    encode: Callable[[Floats, Blocks, Floats | None], None]
    decode: Callable[[Blocks, Floats], None]
    scales: tuple[str, ...]
    weighting: Weighting | None = None
    needs_importance: bool = False
    read_scale: Callable[[Blocks, str], npt.NDArray[Any]] = field_of
    compiled: str | None = None

    def __post_init__(self) -> None:
        assert self.layout.itemsize == self.type.type_size, self.type

    @property
    def chunk(self) -> int:
        """Blocks to give a kernel at once."""
        return ROW * self.sub_block // self.type.block_size


def scratch(count: int, shape: tuple[int, int]) -> list[Floats]:
    """Return arrays of arbitrary content, this thread's until the next call.

    Each begins on a cache line, and all are memory that the last chunk has warmed: fresh
    arrays would cost a page fault every 4 KiB.
    """
    size = -(-shape[0] * shape[1] * 4 // CACHE_LINE) * CACHE_LINE
    buffer = getattr(_LOCAL, "buffer", None)
    if buffer is None or buffer.nbytes < count * size + CACHE_LINE:
        buffer = _LOCAL.buffer = np.empty(count * size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    whole = buffer[start : start + count * size].view(np.float32).reshape(count, -1)
    return [array[: shape[0] * shape[1]].reshape(shape) for array in whole]


@contextmanager
def c_arithmetic() -> Iterator[None]:
    """Silence overflow and division by zero, as in C, for operations on rows of :data:`ROW`.

    NumPy's buffer is set to one row: with a larger one NumPy copies what it broadcasts.
    """
    before = np.setbufsize(ROW)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        np.setbufsize(before)


def nearest_int(x: Floats) -> npt.NDArray[np.int32]:
    """Round as ``nearest_int`` of ggml-quants.c, bit for bit; overwrites ``x``.

    Half to even for abs(x) < 2**22. Beyond that, and for NaN and infinity, whatever the bits
    of the sum say, which is what ggml writes, on every machine.
    """
    x += np.float32(12582912.0)  # 1.5 * 2**23: the integer now stands in the low mantissa bits
    bits = x.view(np.int32)
    bits &= 0x007FFFFF
    bits -= 0x00400000
    return bits
