"""Products in bfloat16 beside float64's of the rounded numbers, and calibration with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfm2gguf.calibration import calibrate
from lfm2gguf.calibration.moments import gather
from lfm2gguf.calibration.products import products_for
from lfm2gguf.calibration.streams import Inputs
from lfm2gguf.crew import ALONE, Crew
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.quants import compiled_products, kernels
from tests.making.checkpoints import Case, config, make

LEAST = 2.0**-126  # what is smaller counts as zero
UNIT = 2.0**-24
CHOICES = np.float32(
    [0.0, -0.0, 1.0, -1.5, 1.00390625, 1.01171875, 3.3961776e38, -3.4e38, np.inf, -np.inf, np.nan,
     1e-45, -1e-39, 1.1754943e-38, 2.4e-38, 1e-20, 1e18, -1e18]
)  # fmt: skip


def why_not() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(kernels.VARIABLE, raising=False)
        if reason := kernels.why_not_compiled():
            return reason
        return "" if compiled_products() else "this processor has no AVX512_BF16"


pytestmark = [
    pytest.mark.slow,  # numba compiles
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest.fixture(autouse=True)
def numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "numba")


def rounded(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The nearest bfloat16, ties to even, by arithmetic: eight bits of each number are kept."""
    fraction, exponent = np.frexp(x.astype(np.float64))
    nearest = np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8)
    nearest[np.abs(nearest) < LEAST] = 0
    nearest[np.abs(nearest) >= 2.0**128] = np.inf
    return np.copysign(nearest, x)


def assert_is_product(
    found: npt.NDArray[np.floating], a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> None:
    """``found`` is ``a @ b`` of what the numbers are rounded to, summed in float32 in any order."""
    left, right = rounded(a), rounded(b)
    with np.errstate(invalid="ignore"):
        expected = left @ right
        most = np.abs(left) @ np.abs(right)
    known = most < np.finfo(np.float32).max / 2  # else sums may overflow on their way
    error = a.shape[1] * (UNIT * most[known] + LEAST)
    assert (np.abs(found[known] - expected[known]) <= error).all()
    assert not np.isfinite(found[~np.isfinite(expected)]).any()
    assert np.isnan(found[np.isnan(most)]).all()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Matrices (tokens, columns) and (rows, columns), ordinary numbers and any others."""
    tokens, rows = draw(st.integers(1, 150)), draw(st.integers(1, 250))
    columns = draw(st.integers(1, 200) | st.just(2100))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = np.float32(draw(st.sampled_from([1, 1e-19, 1e15])))
    share = draw(st.sampled_from([0, 0.01, 0.5]))
    found = []
    for shape in ((tokens, columns), (rows, columns)):
        x = random.standard_normal(shape, np.float32) * scale
        other = random.random(shape) < share
        x[other] = random.choice(CHOICES[: draw(st.sampled_from([8, 18]))], other.sum())
        found.append(x)
    return found[0], found[1]


several = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@several
@given(pairs())
def test_linear_layers(both: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]) -> None:
    x, weight = both
    out = np.full((len(x), len(weight)), np.nan, np.float32)
    multiply, middle = products_for().multiplier(x), len(weight) // 2
    multiply(weight[:middle], out[:, :middle])
    multiply(weight[middle:], out[:, middle:])
    assert_is_product(out, x, weight.T)


@several
@given(pairs(), st.integers(0, 100), st.integers(0, 300))
def test_sums_over_tokens(
    both: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], first: int, start: int
) -> None:
    """Some columns of one with some of another; twice: what was there stays in the sum."""
    x, y = (matrix.T for matrix in both)  # the same number of tokens; not contiguous
    start %= y.shape[1]
    rows = slice(first % x.shape[1] // 8 * 8, x.shape[1])
    total = np.zeros((rows.stop - rows.start, y.shape[1] - start))
    for _ in range(2):
        products_for().features(x).add_product(rows, products_for().features(y), start, total)
    assert_is_product(total / 2, x[:, rows].T, y[:, start:])


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(3)
    y = rng.standard_normal((301, 1100), np.float32)
    x = y + rng.standard_normal(y.shape, np.float32) / 8
    made = []
    for threads in (1, 3):
        with Crew(threads) if threads > 1 else ALONE as crew:
            made.append(
                gather([Inputs(y, x), Inputs(y[:100], x[:100])], y.shape[1], crew, products_for())
            )
    assert made[0].mean.tobytes() == made[1].mean.tobytes()
    assert made[0].cross is not None
    assert made[1].cross is not None
    assert made[0].cross.tobytes() == made[1].cross.tobytes()
    both = rounded(np.concatenate([y, y[:100]]))
    np.testing.assert_allclose(made[0].mean, both.T @ both / 401, rtol=1e-5, atol=1e-5)


def test_no_tokens() -> None:
    nothing = np.empty((0, 64), np.float32)
    assert not gather([Inputs(nothing, nothing)], 64, ALONE, products_for()).mean.any()


def test_numpys_kernels_multiply_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(products_for(GGMLType.Q6_K)).startswith("bfloat16")
    assert str(products_for(GGMLType.Q8_0)) == "float32"  # loses little, and bfloat16 too much
    monkeypatch.setenv(kernels.VARIABLE, "numpy")
    products = products_for()
    assert str(products) == "float32"
    rng = np.random.default_rng(4)
    x, weight = rng.standard_normal((2, 70, 130), np.float32)
    out = np.empty((70, 70), np.float32)
    products.multiplier(x)(weight, out)
    assert out.tobytes() == (x @ weight.T).tobytes()
    total = np.zeros((130, 122))
    products.features(x).add_product(slice(0, 130), products.features(weight), 8, total)
    assert total.tobytes() == (x.T @ weight[:, 8:]).astype(np.float64).tobytes()


def test_a_model_calibrated_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files are as near to the checkpoint, and say how they were made."""
    source = make(Case(config()), tmp_path / "LFM2-Small")
    (tmp_path / "t.txt").write_text("abc def gh. " * 800)
    settings = {"texts": [tmp_path / "t.txt"], "ctx": 32, "chunks": 32}
    made = {}
    for kernel in ("numba", "numpy"):
        monkeypatch.setenv(kernels.VARIABLE, kernel)
        made[kernel] = calibrate(source, tmp_path / f"{kernel}.gguf", "Q4_0", **settings)
        said = GGUFFile.open(tmp_path / f"{kernel}.gguf").get("lfm2gguf.calibration.products")
        assert said == str(products_for())
        assert made[kernel].judgement.calibrated <= made[kernel].judgement.plain
    ours, theirs = (made[kernel].judgement.calibrated for kernel in ("numba", "numpy"))
    assert ours == pytest.approx(theirs, rel=0.15)
