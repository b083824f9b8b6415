"""ggml's own C, through the library that llama-cpp-python installs."""

from __future__ import annotations

import ctypes
import functools
import platform
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf.ggml import GGMLType


class TypeTraits(ctypes.Structure):
    """``struct ggml_type_traits`` of ggml/include/ggml.h, llama.cpp commit 0c1e57098."""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    ]


@functools.cache
def _ggml() -> ctypes.CDLL | None:
    try:
        import llama_cpp
    except ImportError:
        return None
    folder = Path(llama_cpp.__file__).parent / "lib"
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        return None
    lib = ctypes.CDLL(str(path))
    i64, ptr = ctypes.c_int64, ctypes.c_void_p
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ptr, ptr, i64, i64, i64, ptr]
    lib.ggml_get_type_traits.restype = ctypes.POINTER(TypeTraits)
    lib.ggml_validate_row_data.restype = ctypes.c_bool
    lib.ggml_validate_row_data.argtypes = [ctypes.c_int, ptr, ctypes.c_size_t]
    return lib


IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


def why_not() -> str:
    """Why there is nothing to compare with; empty where there is."""
    if not IS_X86:
        return "elsewhere than on x86-64 compilers fuse multiply-add, and ggml makes other bytes"
    if _ggml() is None:
        return "llama-cpp-python is not installed, so there is no ggml to compare with"
    return ""


needs_ggml = pytest.mark.skipif(bool(why_not()), reason=why_not() or "ggml is here")


def lib() -> ctypes.CDLL:
    library = _ggml()
    assert library is not None, "llama-cpp-python is not installed"
    return library


def quantize(x: np.ndarray, type: GGMLType, importance: np.ndarray | None = None) -> np.ndarray:
    """What llama-quantize stores for the rows of ``x``, float32, given that of the columns."""
    x = np.ascontiguousarray(x, np.float32)
    rows, n = x.reshape(-1, x.shape[-1]).shape
    out = np.zeros((*x.shape[:-1], type.row_bytes(n)), np.uint8)
    data = None
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        assert importance.shape == (n,)
        data = importance.ctypes.data
    lib().ggml_quantize_chunk(type.id, x.ctypes.data, out.ctypes.data, 0, rows, n, data)
    return out


def dequantize(data: np.ndarray, type: GGMLType, shape: tuple[int, ...]) -> np.ndarray:
    """The weights that ggml reads back."""
    out = np.empty(shape, np.float32)
    if type is GGMLType.F32:  # has no to_float
        out[:] = data.view(np.float32)
        return out
    data = np.ascontiguousarray(data)
    traits = lib().ggml_get_type_traits(type.id).contents
    traits.to_float(data.ctypes.data, out.ctypes.data, out.size)
    return out


def is_valid(data: np.ndarray, type: GGMLType) -> bool:
    """Whether llama-quantize would accept these bytes (it says on stderr why not)."""
    return bool(lib().ggml_validate_row_data(type.id, data.ctypes.data, data.nbytes))
