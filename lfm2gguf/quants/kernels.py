"""Which kernels do the work: NumPy's, or the same ones compiled by numba, to the same bytes.

NumPy's are the specification and always there. The compiled ones (:mod:`.compiled`) come with
the ``fast`` extra; importing numba takes half a second and its first run compiles, so they
are used for large arrays, and for all once they are loaded. ``LFM2GGUF_KERNELS`` decides
otherwise: ``numpy`` or ``numba``. Products of matrices in bfloat16 are the one thing that NumPy
does not have; calibration alone asks for them.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import MissingDependencyError, OptionError
from lfm2gguf.install import install_command
from lfm2gguf.progress import Progress, ProgressCallback
from lfm2gguf.quants.codec import Codec

VARIABLE = "LFM2GGUF_KERNELS"
PACKAGE = "lfm2gguf.quants.compiled"
LARGE = 1 << 24  # weights; for fewer, loading the compiled kernels costs more than it saves
# What kernels read: float32, float16, and bfloat16 as its bits in uint16.
DTYPES = tuple(map(np.dtype, (np.float32, np.float16, np.uint16)))

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
# Importance as rows of numbers, and which of them is that of each row of weights.
ImportanceRows = tuple[Floats, npt.NDArray[np.intp]]
Encoder = Callable[[npt.NDArray[Any], ImportanceRows | None, Bytes], bool]
Decoder = Callable[[Bytes, Floats], None]
_NO_IMPORTANCE = np.empty(0, np.float32), np.empty(0, np.intp)


def chosen(n_weights: int = LARGE) -> str:
    """Return "numba" or "numpy": which kernels work on so many weights.

    Raises:
        OptionError: ``LFM2GGUF_KERNELS`` is neither.
        MissingDependencyError: it is "numba", and numba does not run here.

    """
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted not in ("", "numpy", "numba"):
        raise OptionError(f"{VARIABLE} is {wanted!r}; numpy and numba are known, or leave it out")
    if wanted == "numpy":
        return "numpy"
    if not wanted and n_weights < LARGE and PACKAGE not in sys.modules:
        return "numpy"
    reason = why_not_compiled()
    if wanted and reason:
        raise MissingDependencyError(f"{VARIABLE} is numba, but {reason}")
    return "numpy" if reason else "numba"


@lru_cache(maxsize=1)
def why_not_compiled() -> str | None:
    """Return why numba cannot be used here; None where it can."""
    if importlib.util.find_spec("numba") is None:
        return (
            f"numba is not installed: {install_command('fast')} (where that finds no release "
            f"for Python {platform.python_version()}, NumPy's kernels write the same bytes)"
        )
    try:
        import numba
    except Exception as error:  # numba refuses NumPy and Python versions that it does not know
        return f"numba cannot be imported: {error}"
    if numba.config.DISABLE_JIT:
        return "NUMBA_DISABLE_JIT is set; unset it"
    return None


def encoder(codec: Codec, n_weights: int) -> Encoder | None:
    """Return the compiled kernel that stores so many weights; None where NumPy's is to do it.

    It fills bytes from a C-contiguous array of one of :data:`DTYPES`, with importance or None,
    and returns whether all its numbers are finite: the bytes are of no use otherwise.
    """
    if codec.compiled is None or chosen(n_weights) == "numpy":
        return None
    module = importlib.import_module(f"{PACKAGE}.{codec.compiled}")
    kernel, looks = module.ENCODERS[codec.type.name], getattr(module, "LOOKS", False)

    def encode(
        array: npt.NDArray[Any], important: ImportanceRows | None, out: npt.NDArray[np.uint8]
    ) -> bool:
        if not looks and not all_finite(array):
            return False
        n = array.shape[-1]
        values, rows = important or _NO_IMPORTANCE
        finite = kernel(_flat(array), _flat(values), _flat(rows), n, out.reshape(-1))
        return bool(finite) or not looks

    return encode


def decoder(codec: Codec, n_weights: int) -> Decoder | None:
    """Return the compiled kernel that reads so many weights; None where NumPy's is to do it.

    It fills float32 from bytes, both C-contiguous.
    """
    if codec.compiled is None or chosen(n_weights) == "numpy":
        return None
    kernel = importlib.import_module(f"{PACKAGE}.decoders").DECODERS[codec.type.name]
    return lambda data, out: kernel(_flat(data), out.reshape(-1))


def do_all(codecs: Iterable[Codec], n_weights: int) -> bool:
    """Return whether compiled kernels store so many weights in all of these types."""
    return all(encoder(codec, n_weights) is not None for codec in codecs)


def products() -> Any | None:
    """Return the compiled products of matrices in bfloat16 (:mod:`.compiled.products`).

    None where NumPy's kernels are chosen, or the processor has no instruction for them.
    """
    if chosen() == "numpy":
        return None
    module = importlib.import_module(f"{PACKAGE}.products")
    return module if module.AVAILABLE else None


def rounding() -> Any | None:
    """Return calibration's compiled loops (:mod:`.compiled.rounding`); None for NumPy's."""
    return None if chosen() == "numpy" else importlib.import_module(f"{PACKAGE}.rounding")


def all_finite(array: npt.NDArray[Any]) -> bool | None:
    """Return whether no number of a C-contiguous array is NaN or infinite.

    None where that is NumPy's to say.
    """
    if array.size % 32 or PACKAGE not in sys.modules or chosen() == "numpy":
        return None
    finite: bool = importlib.import_module(f"{PACKAGE}.numbers").all_finite(_flat(array))
    return finite


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The numbers as kernels take them: numba compiles for each kind of array anew."""
    flat = np.require(np.asarray(array).reshape(-1), requirements="A").view()
    flat.flags.writeable = False
    return flat.view(np.int16) if flat.dtype == np.float16 else flat


def warm_up(
    codecs: Iterable[Codec],
    progress: ProgressCallback | None = None,
    dtypes: Sequence[np.dtype[Any]] = DTYPES,
    *,
    decoding: bool = True,
) -> int:
    """Load the compiled kernels of some types, compiled first where that was never done.

    Compiling takes seconds a type, once: numba keeps the machine code. Returns how many
    types are ready, 0 where NumPy's are chosen.
    """
    wanted = [codec for codec in codecs if codec.compiled] if chosen() == "numba" else []

    def report(done: int, note: str) -> None:
        if progress and wanted:
            progress(Progress("loading kernels", done, len(wanted), "kernels", note))

    for i, codec in enumerate(wanted):
        report(i, f"{codec.type.name}, compiled if this is the first time")
        encode, decode = encoder(codec, LARGE), decoder(codec, LARGE)
        assert encode is not None
        assert decode is not None
        data = np.empty(codec.type.type_size, np.uint8)
        for dtype in dtypes:
            zeros = np.zeros((1, codec.type.block_size), dtype)
            encode(zeros, None, data)
            all_finite(zeros)
        if decoding:
            decode(data, np.empty(codec.type.block_size, np.float32))
    report(len(wanted), "")
    return len(wanted)


def describe() -> dict[str, str | None]:
    """Return which kernels large files get, numba's version, and why it is not used.

    And where the machine code is kept: None where no folder takes it.
    """
    name = chosen()
    version = folder = None
    if name == "numba":
        import numba

        version = numba.__version__
        place = importlib.import_module(f"{PACKAGE}.kept").place()
        folder = None if place is None else str(place)
    return {"kernels": name, "numba": version, "why": why_not_compiled(), "kept": folder}
