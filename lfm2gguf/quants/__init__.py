"""Rows of weights to ggml's bytes and back, bit for bit what ggml's C makes.

The kernels follow ``ggml_quantize_chunk`` and ``to_float`` of llama.cpp commit 0c1e57098, as
its default build for x86-64 computes them: ggml-base, which holds the quantizers, is compiled
there without fused multiply-add, whatever the processor. (Compiled with it, as gcc does by
default for AArch64, the same C makes other bytes of one super-block of Q4_K in fifteen.) Here
every operation is elementwise IEEE float32 or a sum of fixed order, so the bytes depend on the
weights and their importance alone: not on chunks, jobs, NumPy's version, or the machine. The
kernels are NumPy's; :mod:`.compiled` has the same ones for numba, to the same bytes and faster,
and :mod:`.kernels` says which are used.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import QuantizationError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import (
    floats,
    iq1,
    iq2,
    iq3,
    kernels,
    kquants,
    kquants_low,
    legacy,
    microscaling,
    nonlinear,
    ternary,
)
from lfm2gguf.quants.codec import Codec, c_arithmetic
from lfm2gguf.quants.floats import bf16_to_f32, f32_to_bf16
from lfm2gguf.quants.importance import Importance
from lfm2gguf.quants.kernels import describe as describe_kernels
from lfm2gguf.quants.kernels import do_all as compiled_do_all
from lfm2gguf.quants.kernels import products as compiled_products
from lfm2gguf.quants.kernels import rounding as compiled_rounding
from lfm2gguf.quants.kernels import warm_up
from lfm2gguf.quants.nonlinear import VALUES as IQ4_VALUES

__all__ = [
    "CODECS",
    "IQ4_VALUES",
    "Codec",
    "bf16_to_f32",
    "compiled_do_all",
    "compiled_products",
    "compiled_rounding",
    "dequantize",
    "describe_kernels",
    "f32_to_bf16",
    "find_nonfinite",
    "quantize",
    "validate",
    "warm_up",
]

_KERNELS = (floats, legacy, kquants, kquants_low, nonlinear, ternary, microscaling, iq1, iq2, iq3)
CODECS: dict[GGMLType, Codec] = {codec.type: codec for m in _KERNELS for codec in m.CODECS}
_BY_NAME = {codec.type.name: codec for codec in CODECS.values()}


def quantize(
    array: npt.NDArray[Any],
    type: GGMLType | str,
    importance: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.uint8]:
    """Quantize the rows (the last axis) of ``array``.

    A finite weight may still overflow the float16 of its block's scale: see :func:`validate`.

    Args:
        array: float32, float16, or bfloat16 as its bits in uint16.
        type: a type that has a kernel, or its name.
        importance: of the columns, float32 ``(n_per_row,)``, or of any shape that broadcasts to
            the array's, such as ``(n_experts, 1, n_per_row)``: what llama.cpp's importance
            matrix says of the tensor.

    Returns:
        uint8 of shape ``(*array.shape[:-1], row bytes)``.

    Raises:
        QuantizationError: an unknown type or another dtype, rows that are not a multiple of the
            type's block size, NaN or infinity (with the index of the first), importance of
            another shape, or none for a type that cannot do without.

    """
    codec = _codec(type)
    if array.dtype not in kernels.DTYPES:
        raise QuantizationError(
            f"cannot quantize {array.dtype}: pass float32, float16, or bfloat16 as its bits in "
            "uint16"
        )
    row_bytes = _row_bytes(codec.type, array.shape)
    if importance is None and codec.needs_importance:
        raise QuantizationError(f"{codec.type.name} needs an importance matrix")
    important = None if importance is None else Importance(codec, array, importance)
    data = _compiled(codec, array, important)
    if data is None:
        data = _by_numpy(codec, array, important)
    return data.reshape(*array.shape[:-1], row_bytes)


def _by_numpy(
    codec: Codec, array: npt.NDArray[Any], important: Importance | None
) -> npt.NDArray[np.uint8]:
    x = array.reshape(-1, codec.type.block_size)
    blocks = np.empty(len(x), codec.layout)
    step = codec.chunk
    with c_arithmetic():
        for start in range(0, len(x), step):
            chunk = _widened(x[start : start + step])
            if not np.isfinite(chunk).all():
                raise _nonfinite(array)
            weights = None if important is None else important.weights(chunk, start)
            codec.encode(chunk, blocks[start : start + step], weights)
    return blocks.view(np.uint8)


def _compiled(
    codec: Codec, array: npt.NDArray[Any], important: Importance | None
) -> npt.NDArray[np.uint8] | None:
    """What the compiled kernel makes of the array, where there is one and it is to work."""
    encode = kernels.encoder(codec, array.size)
    if encode is None:
        return None
    x = np.ascontiguousarray(array)
    out = np.empty(x.size // codec.type.block_size * codec.type.type_size, np.uint8)
    if not encode(x, important.rows if important and codec.weighting else None, out):
        raise _nonfinite(array)
    return out


def _widened(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return bf16_to_f32(x) if x.dtype == np.uint16 else np.ascontiguousarray(x, np.float32)


def dequantize(
    data: npt.NDArray[Any], type: GGMLType | str, shape: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Return weights of ``shape``, float32, from the bytes that :func:`quantize` or ggml wrote.

    Raises :class:`QuantizationError` for an unknown type and where the number of bytes does
    not match the shape.
    """
    codec = _codec(type)
    shape = tuple(shape)
    expected = math.prod(shape[:-1]) * _row_bytes(codec.type, shape)
    if data.nbytes != expected:
        raise QuantizationError(
            f"{data.nbytes} bytes cannot be {codec.type.name} of shape {shape}: "
            f"that takes {expected} bytes"
        )
    stored = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    blocks = stored.view(codec.layout)
    out = np.empty((len(blocks), codec.type.block_size), np.float32)
    if decode := kernels.decoder(codec, out.size):
        decode(stored, out)
        return out.reshape(shape)
    step = codec.chunk
    with c_arithmetic():
        for start in range(0, len(blocks), step):
            codec.decode(blocks[start : start + step], out[start : start + step])
    return out.reshape(shape)


def validate(data: npt.NDArray[Any], type: GGMLType | str) -> None:
    """Refuse blocks whose scale is NaN or infinite, as ``ggml_validate_row_data`` does.

    That is what finite weights become where they exceed the range of the float16 (or
    bfloat16) they are stored in or scaled by. Raises :class:`QuantizationError` with the
    index of the first weight of the first such block.
    """
    codec = _codec(type)
    blocks = np.ascontiguousarray(data).reshape(-1).view(np.uint8).view(codec.layout)
    for field in codec.scales:
        bad = _unusable(scales := codec.read_scale(blocks, field))
        if bad.any():
            first = int(bad.argmax()) * codec.type.block_size
            raise QuantizationError(
                f"the weights from {first} on are too large for {codec.type.name}: "
                f"the block's {field} is beyond its {8 * scales.dtype.itemsize}-bit float; "
                "use F32 or BF16, or rescale"
            )


def _unusable(scales: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Find the scales that are not finite; integers are the bits of a bfloat16 or of an E8M0."""
    if scales.dtype.kind == "f":
        unusable: npt.NDArray[np.bool_] = ~np.isfinite(scales)
    else:
        bits = 0x7F80 if scales.dtype.itemsize == 2 else 0xFF
        unusable = scales & bits == bits
    return unusable


def find_nonfinite(array: npt.NDArray[Any]) -> tuple[int, ...] | None:
    """Return the index of the first NaN or infinity, or None; uint16 holds bfloat16 bits."""
    if array.flags.c_contiguous and array.dtype in kernels.DTYPES and kernels.all_finite(array):
        return None
    bad = _unusable(array)
    if not bad.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))


def _codec(type: GGMLType | str) -> Codec:
    name = str(getattr(type, "name", type)).upper()  # the gguf package's enum has names as well
    codec = _BY_NAME.get(name)
    if codec is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0)[0]
        raise QuantizationError(f"no kernel for the tensor type {name}: did you mean {near}?")
    return codec


def _row_bytes(type: GGMLType, shape: tuple[int, ...]) -> int:
    if not shape or shape[-1] % type.block_size:
        raise QuantizationError(
            f"shape {shape} cannot be {type.name}: "
            f"a row must be a multiple of {type.block_size} weights"
        )
    return type.row_bytes(shape[-1])


def _nonfinite(array: npt.NDArray[Any]) -> QuantizationError:
    at = find_nonfinite(array)
    assert at is not None
    value = _widened(array[at].reshape(1))[0]
    return QuantizationError(f"weight {at} is {value}: only finite weights can be quantized")
