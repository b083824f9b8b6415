"""The compiled kernels beside ggml's C and beside NumPy's: the same bytes from the same weights."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lfm2gguf.errors import MissingDependencyError, OptionError, QuantizationError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.progress import Progress
from lfm2gguf.quants import CODECS, f32_to_bf16, find_nonfinite, kernels, quantize

from . import oracle
from .campaign import differences
from .samples import IMPORTANCE, SAMPLES, bf16, importance, sample

COMPILED = [type for type, codec in CODECS.items() if codec.compiled]
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    bool(kernels.why_not_compiled()), reason=str(kernels.why_not_compiled())
)
every_type = pytest.mark.parametrize("type", COMPILED, ids=lambda type: type.name)


@pytest.fixture(autouse=True)
def numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "numba")


def by_numpy(x: np.ndarray, type: GGMLType) -> np.ndarray:
    """NumPy's bytes, whatever is chosen."""
    codec = CODECS[type]
    blocks = np.empty(x.size // type.block_size, codec.layout)
    with np.errstate(all="ignore"):
        codec.encode(np.ascontiguousarray(x.reshape(-1, type.block_size)), blocks, None)
    return blocks.view(np.uint8).reshape(*x.shape[:-1], -1)


def assert_same_bytes(x: np.ndarray, type: GGMLType) -> None:
    ours = quantize(x, type)
    assert np.array_equal(ours, by_numpy(x, type))
    if not oracle.why_not():
        assert np.array_equal(ours, oracle.quantize(x, type))


@every_type
@pytest.mark.parametrize("name", SAMPLES)
def test_bytes(name: str, type: GGMLType) -> None:
    assert_same_bytes(sample(name), type)


@every_type
@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 255, 256, 257, 513])
def test_any_number_of_blocks(blocks: int, type: GGMLType) -> None:
    """A group that is not full, too: sub-blocks are searched sixteen at a time."""
    assert_same_bytes(np.resize(sample("bf16"), (blocks, type.block_size)), type)


@every_type
def test_every_float16_scale(type: GGMLType) -> None:
    top = np.ldexp(1.0, np.arange(-30, 24))[:, None] * np.linspace(1, 2, 64, endpoint=False)
    x = np.resize(sample("uniform"), (top.size, 256)) * top.reshape(-1, 1)
    assert_same_bytes(x.astype(np.float32), type)


@every_type
def test_one_odd_sub_block_among_ordinary_ones(type: GGMLType) -> None:
    """What it takes, a careful search of its whole group, must not change its neighbours."""
    odd = [np.full(16, 1e-41), np.full(16, 3e38), np.resize([1e30, -1e-30], 16), np.zeros(16)]
    x = np.resize(sample("normal"), (len(odd) * 32, 512)).astype(np.float32)
    for i, values in enumerate(odd):
        for k in range(32):
            x[32 * i + k, 16 * k : 16 * k + 16] = values
    assert_same_bytes(x, type)


@every_type
@pytest.mark.parametrize("name", SAMPLES)
def test_bytes_with_importance(name: str, type: GGMLType, monkeypatch: pytest.MonkeyPatch) -> None:
    x = sample(name)
    for kind in IMPORTANCE:
        given = importance(kind, x.shape[-1])
        ours = quantize(x, type, given)
        if not oracle.why_not():
            assert np.array_equal(ours, oracle.quantize(x, type, given))
        with monkeypatch.context() as other:
            other.setenv(kernels.VARIABLE, "numpy")
            assert np.array_equal(ours, quantize(x, type, given))


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
PALETTES = st.lists(FINITE, min_size=1, max_size=5).flatmap(
    lambda values: hnp.arrays(np.float32, (3, 256), elements=st.sampled_from(values))
)
often = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@every_type
@often
@given(x=st.one_of(PALETTES, hnp.arrays(np.float32, (3, 256), elements=FINITE, fill=FINITE)))
def test_bytes_of_anything(type: GGMLType, x: np.ndarray) -> None:
    assert_same_bytes(x, type)


@pytest.mark.slow
@every_type
@often
@given(
    steps=hnp.arrays(np.int8, (3, 256), elements=st.integers(-20, 20)),
    unit=st.floats(width=32, min_value=2.0**-140, max_value=2.0**110),
    offset=st.integers(-100, 100),
)
def test_bytes_of_evenly_spaced_weights(
    type: GGMLType, steps: np.ndarray, unit: float, offset: int
) -> None:
    assert_same_bytes((steps + np.float32(offset)) * np.float32(unit), type)


@pytest.mark.slow
@pytest.mark.weekly
@oracle.needs_ggml
@every_type
def test_many_blocks(type: GGMLType) -> None:
    """Twenty million weights of the campaign's distributions, precisions and scales."""
    assert not sum(differences(seed, type) for seed in range(1000, 1040))


@every_type
@pytest.mark.parametrize("name", ["bf16", "ranges of sub-blocks", "denormal", "signs of zero"])
def test_narrow_weights_are_read_as_they_are(name: str, type: GGMLType) -> None:
    x = bf16(sample(name))
    assert np.array_equal(quantize(f32_to_bf16(x), type), quantize(x, type))
    with np.errstate(over="ignore"):
        half = np.nan_to_num(x.astype(np.float16), posinf=6e4, neginf=-6e4)
    assert np.array_equal(quantize(half, type), quantize(half.astype(np.float32), type))


@every_type
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_every_place_of_nan_and_infinity_is_found(type: GGMLType, dtype: type) -> None:
    x = np.zeros((2, 256), dtype)
    for place in range(0, 512, 31):
        bad = x.copy().reshape(-1)
        bad[place] = 0x7F80 if dtype is np.uint16 else np.nan if place % 2 else -np.inf
        at = (place // 256, place % 256)
        assert find_nonfinite(bad.reshape(2, 256)) == at
        with pytest.raises(QuantizationError, match=rf"weight \({at[0]}, {at[1]}\) is .*(inf|nan)"):
            quantize(bad.reshape(2, 256), type)


@every_type
def test_threads_do_not_disturb_each_other(type: GGMLType) -> None:
    x, found = np.resize(sample("normal"), (64, 1024)), []
    expected = quantize(x, type)
    threads = [threading.Thread(target=lambda: found.append(quantize(x, type))) for _ in range(4)]
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
    expected = quantize(x, type)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not unaligned.flags.aligned
    assert np.array_equal(quantize(unaligned, type), expected)
    assert np.array_equal(quantize(np.asfortranarray(x), type), expected)
    assert np.array_equal(quantize(np.repeat(x, 2, axis=0)[::2], type), expected)


PROGRAM = """
import hashlib, sys
from lfm2gguf.quants import CODECS, quantize
from tests.quants.samples import SAMPLES, sample
digest = hashlib.sha256()
for type, codec in CODECS.items():
    if codec.compiled:
        for name in SAMPLES:
            digest.update(quantize(sample(name), type).tobytes())
assert "numba" in sys.modules
print(digest.hexdigest())
"""


def run(program: str, **environment: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
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
        for name in SAMPLES:
            expected.update(by_numpy(sample(name), type).tobytes())
    found = run(PROGRAM, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    assert found.strip() == expected.hexdigest()


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = CODECS[GGMLType.Q8_0]
    assert kernels.chosen() == "numba"
    assert kernels.encoder(codec, 1) is not None
    monkeypatch.setenv(kernels.VARIABLE, "NumPy")
    assert kernels.chosen() == "numpy"
    assert kernels.encoder(codec, 1 << 30) is None
    monkeypatch.setenv(kernels.VARIABLE, "fortran")
    with pytest.raises(OptionError, match="LFM2GGUF_KERNELS is 'fortran'; numpy and numba"):
        kernels.chosen()


def test_what_is_small_does_not_load_numba() -> None:
    program = """
import sys, numpy as np, lfm2gguf, lfm2gguf.quants as q
q.quantize(np.zeros((4, 256), np.float32), "Q4_K")
assert "numba" not in sys.modules
x = np.zeros((256, 1 << 16), np.float32)
q.quantize(x, "Q8_0")
assert "numba" in sys.modules
"""
    run(program, LFM2GGUF_KERNELS="")


def test_where_numba_does_not_work() -> None:
    program = """
from lfm2gguf.quants import kernels
print(kernels.chosen(), kernels.why_not_compiled())
"""
    said = run(program, LFM2GGUF_KERNELS="", NUMBA_DISABLE_JIT="1")
    assert said == "numpy NUMBA_DISABLE_JIT is set; unset it\n"


def test_where_numba_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "why_not_compiled", lambda: "numba is not installed: ...")
    with pytest.raises(MissingDependencyError, match="LFM2GGUF_KERNELS is numba, but numba is not"):
        kernels.chosen()


def test_warm_up_names_each_kernel() -> None:
    said: list[Progress] = []
    types = (GGMLType.Q8_0, GGMLType.F32)
    assert kernels.warm_up([CODECS[type] for type in types], said.append) == 1
    assert [(now.done, now.total, now.note[:5]) for now in said] == [(0, 1, "Q8_0,"), (1, 1, "")]
