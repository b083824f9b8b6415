"""A gate's verdict: limits, tolerance, drift."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lfm2gguf.errors import OptionError
from lfm2gguf.reference.weights import ReferenceConfig
from lfm2gguf.verification import Engine, Session, Verification
from lfm2gguf.verification.limits import TENSOR_LIMITS, TYPE_LIMITS, TextLimits
from lfm2gguf.verification.measure.figures import summarize
from lfm2gguf.verification.measure.scores import Scores, score
from lfm2gguf.verification.measure.tensors import TensorDifference
from lfm2gguf.verification.report.data import dumps
from lfm2gguf.verification.verdict.baseline import drift_gates
from lfm2gguf.verification.verdict.gates import (
    CALIBRATED,
    CONFIG,
    FEEDBACK,
    IMPORTANCE,
    PLAIN,
    WEIGHED,
    Gate,
    figure_gates,
    metadata_gate,
    room_of,
    tensor_gate,
    tolerated_ratio_error,
)


def random_logits(n: int, vocabulary: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, vocabulary)).astype(np.float32) * 2


def noisy(reference: np.ndarray, size: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(reference.shape).astype(np.float32)
    return reference + np.float32(size) * noise


def drawn(reference: np.ndarray, seed: int = 2) -> np.ndarray:
    """The token that follows, drawn from the reference's own distribution."""
    gumbel = np.random.default_rng(seed).gumbel(size=reference.shape)
    return (reference + gumbel).argmax(axis=1).astype(np.int32)


@pytest.mark.parametrize(
    ("gate", "passed", "margin"),
    [
        (Gate("a", 1.0, 2.0), True, 1.0),
        (Gate("a", 2.0, 2.0), True, 0.0),
        (Gate("a", 2.1, 2.0), False, -0.1),
        (Gate("a", 2.1, 2.0, tolerance=0.2), True, 0.1),
        (Gate("a", 0.9, 0.8, ">="), True, 0.1),
        (Gate("a", 0.7, 0.8, ">="), False, -0.1),
        (Gate("a", math.inf, 2.0), False, -math.inf),
        (Gate("a", -math.inf, 2.0), False, math.inf),
    ],
)
def test_a_gate(gate: Gate, passed: bool, margin: float) -> None:
    assert gate.passed is passed
    assert gate.margin == pytest.approx(margin)


@pytest.mark.parametrize("relation", ["<=", ">="])
def test_not_a_number_never_passes(relation: str) -> None:
    assert not Gate("a", math.nan, 1.0, relation).passed


def test_the_tolerance_is_what_a_file_at_the_limit_shows() -> None:
    """Logit noise that gives exactly the permitted KLD: its paired error, seen and foretold."""
    reference = random_logits(4000)
    found = score(reference, noisy(reference, 0.2), drawn(reference))
    seen = summarize(found, [len(found)]).log_ppl_ratio.uncertainty
    foretold = tolerated_ratio_error(found, float(found.kld.mean()))
    assert foretold == pytest.approx(seen, rel=0.1)


def test_a_broken_file_does_not_widen_what_it_is_held_to() -> None:
    reference = random_logits(1000)
    targets = drawn(reference)
    good, broken = (score(reference, noisy(reference, size), targets) for size in (0.05, 5.0))
    limits = TextLimits(0.02, 0.05, 0.9)
    a, b = (list(figure_gates(summarize(s, [1000]), s, limits)) for s in (good, broken))
    assert [gate.tolerance for gate in a] == [gate.tolerance for gate in b]
    assert all(gate.passed for gate in a)
    assert [gate.name for gate in b if gate.passed] == ["finite logits"]
    wide = summarize(broken, [1000]).ppl_ratio.uncertainty
    assert wide > 10 * b[1].tolerance  # what its own error would have allowed


def test_one_bad_chunk_fails_where_the_mean_would_pass() -> None:
    reference = random_logits(1000)
    candidate = noisy(reference, 0.01)
    candidate[900:] = noisy(reference, 1.0)[900:]
    scores = score(reference, candidate, drawn(reference))
    figures = summarize(scores, [100] * 10)
    limits = TextLimits(1.0, 1.5 * figures.kld.value, 0.5)
    failed = [gate for gate in figure_gates(figures, scores, limits) if not gate.passed]
    assert [gate.name for gate in failed] == ["KL divergence of the worst chunk"]
    assert failed[0].detail == "chunk 10 of 10"


def test_a_chunk_without_a_finite_logit_is_the_worst() -> None:
    reference = random_logits(20)
    candidate = reference.copy()
    candidate[:10] = np.nan
    scores = score(reference, candidate, drawn(reference))
    gates = list(figure_gates(summarize(scores, [10, 10]), scores, TYPE_LIMITS["Q8_0"].text))
    failed = {gate.name for gate in gates if not gate.passed}
    assert failed == {"finite logits", "KL divergence of the worst chunk"}


def test_a_reference_without_doubt_gives_no_tolerance() -> None:
    certain = np.zeros(5)
    scores = Scores(certain, certain, certain, np.ones(5), np.ones(5))
    assert tolerated_ratio_error(scores, 0.05) == 0.0


def test_coarser_types_have_wider_limits() -> None:
    order = ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q4_0"]
    rows = [TYPE_LIMITS[name].text for name in order]
    assert len(TYPE_LIMITS) == len(order)
    for finer, coarser in itertools.pairwise(rows):
        assert finer.max_kld <= coarser.max_kld
        assert finer.max_ppl_increase <= coarser.max_ppl_increase
        assert finer.min_top1 >= coarser.min_top1


def test_the_tensor_nearest_to_its_limit_decides() -> None:
    [gate] = tensor_gate(
        [
            TensorDifference("a", "Q8_0", 0.01, TENSOR_LIMITS["Q8_0"].run * 0.9),
            TensorDifference("b", "Q4_K", 0.08, TENSOR_LIMITS["Q4_K"].run * 0.5),
        ]
    )
    assert gate.value == pytest.approx(0.9)
    assert gate.detail.startswith("a:")
    assert list(tensor_gate([TensorDifference("a", "NVFP4", 0.1, 0.2)])) == []


def test_settings_are_compared_as_float32() -> None:
    config = ReferenceConfig(("conv",), 4, 2, 1e-5, 1e6, True)
    stored = ReferenceConfig(("conv",), 4, 2, float(np.float32(1e-5)), 1e6, True)
    assert metadata_gate((stored, config, CONFIG)).passed
    wrong = ReferenceConfig(("conv",), 4, 2, 1e-5, 1e4, True)
    assert metadata_gate((wrong, config, CONFIG)).detail == "rope_theta is 10000.0, not 1000000.0"


# --- drift from a baseline -----------------------------------------------------------------


@pytest.fixture(scope="module")
def result(session: Session, files: dict[str, Path]) -> Verification:
    return session.judge(files["Q6_K"], engine=Engine("numpy"))


def test_the_same_file_does_not_drift(result: Verification, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(dumps([result]))
    assert all(gate.passed for gate in drift_gates(path, result))


@pytest.mark.parametrize(("figure", "factor"), [("kld", 1.25), ("kld", 0.75), ("ppl_ratio", 1.01)])
def test_drift_fails(result: Verification, tmp_path: Path, figure: str, factor: float) -> None:
    report = json.loads(dumps([result]))
    report["files"][0]["stages"]["shipped"][figure]["value"] *= factor
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(report))
    assert sum(not gate.passed for gate in drift_gates(path, result)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda report: report.update(version=0), "of version 0"),
        (lambda report: report["files"][0].update(type="Q8_0"), "has no Q6_K file"),
        (lambda report: report["files"][0].update(ctx=1), r"ctx \(--ctx\) differs"),
        (lambda report: report["files"][0]["texts"][0].update(chunks=9), "the material differs"),
        (lambda report: report["files"][0]["reference"].update(digest=""), "the reference differs"),
        (lambda report: report.pop("files"), "not a report"),
    ],
)
def test_a_baseline_of_something_else_is_refused(
    result: Verification, tmp_path: Path, change: object, message: str
) -> None:
    report = json.loads(dumps([result]))
    change(report)  # type: ignore[operator]
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(report))
    with pytest.raises(OptionError, match=message):
        drift_gates(path, result)


def test_an_absent_baseline_is_refused(result: Verification, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="the baseline cannot be read"):
        drift_gates(tmp_path / "absent.json", result)


def tensors(*excesses: float) -> list[TensorDifference]:
    """Tensors that are off by so many times what rounding loses."""
    return [
        TensorDifference(f"blk.{i}.x.weight", "Q2_K", 0.3 * excess, 0.5, excess)
        for i, excess in enumerate(excesses)
    ]


def test_a_tensor_is_held_to_what_rounding_it_loses() -> None:
    """Where the type's own loss would hide a fault."""
    faulty = tensors(1.0, 1.0, 1.2)
    [gate] = tensor_gate(faulty)
    assert not gate.passed
    assert gate.detail.startswith("blk.2")
    [gate] = tensor_gate(faulty, IMPORTANCE)
    assert gate.passed
    [gate] = tensor_gate(tensors(1.0, math.nan))
    assert not gate.passed


def test_feedback_moves_weights_and_is_told_from_a_fault() -> None:
    """Most tensors beyond plain rounding: another rounding. One of them: a fault."""
    plain, weighed = SimpleNamespace(metadata={}), SimpleNamespace(metadata={f"{WEIGHED}file": "m"})
    moved, faulty = tensors(1.3, 1.4, 1.2, 2.0), tensors(1.0, 1.0, 1.0, 2.0)
    assert room_of(plain, moved) is FEEDBACK
    assert room_of(plain, faulty) is PLAIN
    assert room_of(weighed, tensors(1.2, 1.2, 1.2)) is IMPORTANCE
    assert room_of(weighed, tensors(1.5, 1.5, 1.5)) is FEEDBACK
    assert room_of(SimpleNamespace(metadata={CALIBRATED: "x"}), faulty) is FEEDBACK
    [gate] = tensor_gate(moved, FEEDBACK)
    assert gate.passed
    [gate] = tensor_gate(tensors(9.0), FEEDBACK)
    assert not gate.passed
    exact = TensorDifference("token_embd.weight", "F16", 1e-3, 2e-3)
    [gate] = tensor_gate([exact], FEEDBACK)
    assert not gate.passed
