"""The kernels compiled by numba: one module a family of formats, as beside this folder.

Only :mod:`lfm2gguf.quants.kernels` imports them, and only when they are used. Every module of a
family has a table ``ENCODERS`` by the type's name: ``encode(source, q, rows, n, out)`` fills the
bytes ``out`` from the weights ``source`` (float32, bfloat16 bits in uint16 or float16 bits in
int16), rows of ``n``. They are finite, unless the module has it that it ``LOOKS`` itself: then
``encode`` returns whether they are. Their importance is ``q``, rows of ``n`` of which ``rows``
names that of each row of weights; both are empty where there is none. :mod:`.decoders` has the
way back; :mod:`.products` is what calibration multiplies with, :mod:`.rounding` its loops. All
arrays are flat. What a format is, and why its kernel does what it does, stands with NumPy's
kernels.
"""
