"""The kernels compiled by numba: one module a family of formats, as beside this folder.

Only :mod:`lfm2gguf.quants.kernels` imports them, and only when they are used. Every module has
a table ``ENCODERS`` by the type's name: ``encode(source, out)`` fills the bytes ``out`` (flat)
from the weights ``source`` (flat, finite; float32, bfloat16 bits in uint16 or float16 bits in
int16). What a format is, and why its kernel does what it does, stands with NumPy's kernels.
"""
