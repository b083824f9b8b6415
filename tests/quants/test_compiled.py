"""The compiled kernels beside ggml's C and beside NumPy's: the same bytes from the same weights."""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lfm2gguf.errors import QuantizationError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.progress import Progress
from lfm2gguf.quants import CODECS, dequantize, f32_to_bf16, find_nonfinite, kernels, quantize

from . import oracle
from .campaign import differences
from .samples import IMPORTANCE, bf16, importance, names, needed, sample, uses_grid

COMPILED = [type for type, codec in CODECS.items() if codec.compiled]
KINDS = [None, *IMPORTANCE]
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,  # numba compiles, if only once
    pytest.mark.skipif(bool(kernels.why_not_compiled()), reason=str(kernels.why_not_compiled())),
]
every_type = pytest.mark.parametrize("type", COMPILED, ids=lambda type: type.name)


@pytest.fixture(autouse=True)
def numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "numba")


def by_numpy(x: np.ndarray, type: GGMLType, given: np.ndarray | None) -> np.ndarray:
    """NumPy's bytes, whatever is chosen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernels.VARIABLE, "numpy")
        return quantize(x, type, given)


def assert_same_bytes(
    x: np.ndarray, type: GGMLType, kind: str | None = None, *, numpy: bool = True
) -> None:
    """Of weights with or without importance: that of the samples called ``kind``."""
    if CODECS[type].needs_importance:
        kind = kind or "uniform"
    given = importance(kind, x.shape[-1])
    if numpy or oracle.why_not():
        try:
            expected = by_numpy(x, type, given)
        except QuantizationError:  # where ggml would end the program
            with pytest.raises(QuantizationError):
                quantize(x, type, given)
            return
        assert np.array_equal(quantize(x, type, given), expected), (type.name, kind)
    ours = quantize(x, type, given)
    if not oracle.why_not():
        assert np.array_equal(ours, oracle.quantize(x, type, given)), (type.name, kind)


@every_type
def test_bytes(type: GGMLType) -> None:
    for name in names(type):
        for kind in KINDS:
            numpy = kind is None or (kind == "uniform" and not uses_grid(type))
            assert_same_bytes(sample(name), type, kind, numpy=numpy)


@every_type
def test_any_number_of_blocks(type: GGMLType) -> None:
    """A group that is not full, too: blocks are searched sixteen at a time."""
    for blocks in (1, 2, 15, 16, 17, 33, 256):
        x = np.resize(sample("bf16"), (blocks, type.block_size))
        for kind in (None, "uniform"):
            assert_same_bytes(x, type, kind)
            assert_same_bytes(x.reshape(1, -1), type, kind)


@every_type
def test_every_float16_scale(type: GGMLType) -> None:
    top = np.ldexp(1.0, np.arange(-30, 24))[:, None] * np.linspace(1, 2, 64, endpoint=False)
    x = np.resize(sample("uniform"), (top.size, 256)) * top.reshape(-1, 1)
    for kind in (None, "heavy tails"):
        assert_same_bytes(x.astype(np.float32), type, kind, numpy=not uses_grid(type))


@every_type
def test_one_odd_sub_block_among_ordinary_ones(type: GGMLType) -> None:
    """What it takes, a careful search of its whole group, must not change its neighbours."""
    huge = 1e9 if uses_grid(type) else 3e38  # beyond, ggml ends the program
    odd = [np.full(16, 1e-41), np.full(16, huge), np.resize([huge, -1e-30], 16), np.zeros(16)]
    x = np.resize(sample("normal"), (len(odd) * 32, 512)).astype(np.float32)
    for i, values in enumerate(odd):
        for k in range(32):
            x[32 * i + k, 16 * k : 16 * k + 16] = values
    for kind in (None, "uniform"):
        assert_same_bytes(x, type, kind)


@every_type
def test_one_weight_whose_square_overflows_among_few(type: GGMLType) -> None:
    """All of its super-block is infinitely important, and what is zero nothing and no number."""
    x = np.zeros((32, 256), np.float32)
    x[:, 0] = 2.0**64
    x[np.arange(32), 8 * np.arange(32) + 7 * (np.arange(32) % 2)] = -1
    for kind in (None, "uniform"):
        assert_same_bytes(x, type, kind)


def test_tables_have_the_nearest_level_of_iq4() -> None:
    """Of each number that a search makes: also where processors without tables run the tests."""
    from lfm2gguf.quants.compiled.nonlinear import EIGHTHS, MIDDLES, PARTINGS

    middles = np.float32(MIDDLES)
    t = np.linspace(-139, 139, 278 * 128 + 1, dtype=np.float32)
    t = np.concatenate([t, *(np.nextafter(middles, np.float32(to)) for to in (-999, 999))])
    at, low, high = np.array(PARTINGS, np.float32)[(t + EIGHTHS).view(np.int32) & 31].T
    assert np.array_equal(np.where(t < at, low, high), np.searchsorted(middles, t, side="right"))


@every_type
@pytest.mark.parametrize("shape", [(1024,), (6, 1024), (1, 1024), (3, 1, 1024)])
def test_importance_of_experts(type: GGMLType, shape: tuple[int, ...]) -> None:
    """Of all rows, of each, or of those of each expert."""
    x = sample("bf16").reshape(3, 2, 1024) if len(shape) == 3 else sample("bf16")
    given = np.resize(importance("uniform", 6 * 1024), shape).astype(np.float32)
    assert np.array_equal(quantize(x, type, given), by_numpy(x, type, given))


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
PALETTES = st.lists(FINITE, min_size=1, max_size=5).flatmap(
    lambda values: hnp.arrays(np.float32, (3, 256), elements=st.sampled_from(values))
)
often = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@every_type
@often
@given(
    x=st.one_of(PALETTES, hnp.arrays(np.float32, (3, 256), elements=FINITE, fill=FINITE)),
    kind=st.sampled_from(KINDS),
)
def test_bytes_of_anything(type: GGMLType, x: np.ndarray, kind: str | None) -> None:
    assert_same_bytes(x, type, kind)


@every_type
@often
@given(
    steps=hnp.arrays(np.int8, (3, 256), elements=st.integers(-20, 20)),
    unit=st.floats(width=32, min_value=2.0**-140, max_value=2.0**110),
    offset=st.integers(-100, 100),
    kind=st.sampled_from(KINDS),
)
def test_bytes_of_evenly_spaced_weights(
    type: GGMLType, steps: np.ndarray, unit: float, offset: int, kind: str | None
) -> None:
    assert_same_bytes((steps + np.float32(offset)) * np.float32(unit), type, kind)


@oracle.needs_ggml
@every_type
def test_weights_of_any_bytes(type: GGMLType) -> None:
    data = np.random.default_rng(0).integers(0, 256, (500, type.type_size), np.uint8)
    shape = (500, type.block_size)
    ggml, ours = oracle.dequantize(data, type, shape), dequantize(data, type, shape)
    nan = np.isnan(ggml)  # whose payload is of no concern
    assert np.array_equal(nan, np.isnan(ours))
    assert np.array_equal(ours[~nan].view(np.uint32), ggml[~nan].view(np.uint32))


@pytest.mark.weekly
@oracle.needs_ggml
@every_type
def test_many_blocks(type: GGMLType) -> None:
    """Forty million weights of the campaign's sixteen distributions, their precisions and scales.

    Of all types together ten million blocks.
    """
    assert not sum(differences(seed, type) for seed in range(1000, 1080))


@every_type
@pytest.mark.parametrize("name", ["bf16", "ranges of sub-blocks", "denormal", "signs of zero"])
def test_narrow_weights_are_read_as_they_are(name: str, type: GGMLType) -> None:
    x = bf16(sample(name))
    with np.errstate(over="ignore"):
        half = np.nan_to_num(x.astype(np.float16), posinf=6e4, neginf=-6e4)
    for of_columns in (needed(type, x), importance("uniform", x.shape[-1])):
        wide = quantize(x, type, of_columns)
        assert np.array_equal(quantize(f32_to_bf16(x), type, of_columns), wide)
        wide = quantize(half.astype(np.float32), type, of_columns)
        assert np.array_equal(quantize(half, type, of_columns), wide)


@every_type
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_every_place_of_nan_and_infinity_is_found(type: GGMLType, dtype: type) -> None:
    x = np.zeros((32, 256), dtype)
    for place in (*range(0, 512, 31), 2047, 2048, 8191):
        bad = x.copy().reshape(-1)
        bad[place] = 0x7F80 if dtype is np.uint16 else np.nan if place % 2 else -np.inf
        at = (place // 256, place % 256)
        given = needed(type, x) if place % 3 else importance("uniform", 256)
        assert find_nonfinite(bad.reshape(x.shape)) == at
        with pytest.raises(QuantizationError, match=rf"weight \({at[0]}, {at[1]}\) is .*(inf|nan)"):
            quantize(bad.reshape(x.shape), type, given)


@every_type
def test_threads_do_not_disturb_each_other(type: GGMLType) -> None:
    x, found = np.resize(sample("normal"), (64, 1024)), []
    of_columns = needed(type, x)
    expected = quantize(x, type, of_columns)
    threads = [
        threading.Thread(target=lambda: found.append(quantize(x, type, of_columns)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(data, expected) for data in found)


@every_type
def test_memory_of_any_kind(type: GGMLType) -> None:
    """Read-only, strided, and not aligned, as weights lie in a file that is mapped."""
    x = np.resize(sample("normal"), (4, 1024)).astype(np.float32)
    of_columns = needed(type, x)
    expected = quantize(x, type, of_columns)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not unaligned.flags.aligned
    assert np.array_equal(quantize(unaligned, type, of_columns), expected)
    assert np.array_equal(quantize(np.asfortranarray(x), type, of_columns), expected)
    assert np.array_equal(quantize(np.repeat(x, 2, axis=0)[::2], type, of_columns), expected)


PROGRAM = """
import hashlib, sys
from lfm2gguf.quants import CODECS, quantize
from tests.quants.samples import names, needed, sample
digest = hashlib.sha256()
for type, codec in CODECS.items():
    if codec.compiled:
        for name in names(type):
            x = sample(name)
            digest.update(quantize(x, type, needed(type, x)).tobytes())
assert "numba" in sys.modules
print(digest.hexdigest())
"""


def run(program: str, **environment: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


@pytest.mark.weekly
@pytest.mark.parametrize(
    ("cpu", "features"), [("x86-64", ""), ("x86-64-v3", ""), ("generic", "")], ids=lambda x: x
)
def test_every_processor_gets_the_same_bytes(cpu: str, features: str) -> None:
    """Baseline x86-64 and AVX2: other machine code from the same kernels."""
    if not oracle.IS_X86:
        pytest.skip("these are names of x86-64 processors")
    expected = hashlib.sha256()
    for type in COMPILED:
        for name in names(type):
            x = sample(name)
            expected.update(by_numpy(x, type, needed(type, x)).tobytes())
    found = run(PROGRAM, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    assert found.strip() == expected.hexdigest()


def test_functions_of_one_factory_differ_by_name() -> None:
    """Their code is not told apart otherwise: a cached one and a new one would be the same."""
    from numba.core.dispatcher import Dispatcher

    package = "lfm2gguf.quants.compiled"
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    enclosed = defaultdict(set)
    for found in (f for f in gc.get_objects() if issubclass(type(f), Dispatcher)):  # no stand-ins
        function = found.py_func
        if function.__module__.startswith(package) and function.__closure__:
            cells = [cell.cell_contents for cell in function.__closure__]
            said = [getattr(cell, "py_func", cell) for cell in cells]
            names = [getattr(value, "__qualname__", repr(value)) for value in said]
            assert not any(" at 0x" in name for name in names)  # no cache would have it again
            enclosed[function.__module__, function.__qualname__].add(tuple(names))
    assert len(enclosed) > 10
    assert all(len(contents) == 1 for contents in enclosed.values())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupted_compilation_leaves_nothing_broken(tmp_path: Path) -> None:
    program = """
import sys
import numpy as np
from lfm2gguf.quants import CODECS, quantize, kernels
from lfm2gguf.ggml import GGMLType
print("go", flush=True)
x = np.resize(np.float32([1, -2, 3, 4, -5, 6, 7]), (32, 64))
sys.stdout.buffer.write(quantize(x, "Q8_0").tobytes())
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    while not list(tmp_path.rglob("*.nbc")) and process.poll() is None:  # in the midst of it
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGINT, said.decode()[-500:]
    x = np.resize(np.float32([1, -2, 3, 4, -5, 6, 7]), (32, 64))
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout
    assert done == b"go\n" + by_numpy(x, GGMLType.Q8_0, None).tobytes()


def test_warm_up_names_each_kernel() -> None:
    said: list[Progress] = []
    types = (GGMLType.Q8_0, GGMLType.F32)
    assert kernels.warm_up([CODECS[type] for type in types], said.append) == 1
    assert [(now.done, now.total, now.note[:5]) for now in said] == [(0, 1, "Q8_0,"), (1, 1, "")]
