"""Scores and figures against plain loops over the definitions of perplexity.cpp."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm2gguf.verification.measure.figures import mean, split, summarize
from lfm2gguf.verification.measure.scores import Scores, score


def random_logits(seed: int, positions: int, vocabulary: int, noise: float) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((positions, vocabulary)).astype(np.float32) * 3
    candidate = reference + noise * rng.standard_normal(reference.shape).astype(np.float32)
    return reference, candidate, rng.integers(0, vocabulary, positions).astype(np.int32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6), st.integers(2, 50), st.sampled_from([0.0, 0.1, 3.0]))
def test_each_score_is_its_definition(seed: int, n: int, vocabulary: int, noise: float) -> None:
    reference, candidate, targets = random_logits(seed, n, vocabulary, noise)
    found = score(reference, candidate, targets)
    for i in range(n):
        r, c = reference[i].astype(float), candidate[i].astype(float)
        p = [math.exp(x) / sum(map(math.exp, r)) for x in r]
        q = [math.exp(x) / sum(map(math.exp, c)) for x in c]
        assert found.nll_reference[i] == pytest.approx(-math.log(p[targets[i]]), rel=1e-9)
        assert found.nll_candidate[i] == pytest.approx(-math.log(q[targets[i]]), rel=1e-9)
        kld = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert found.kld[i] == pytest.approx(kld, rel=1e-7, abs=1e-13)
        assert found.same_top[i] == (np.argmax(r) == np.argmax(c))
        assert found.collision[i] == pytest.approx(sum(a * a for a in p))
        assert found.delta_p[i] == pytest.approx(q[targets[i]] - p[targets[i]], abs=1e-12)


def test_the_same_logits_have_no_divergence() -> None:
    reference, _, targets = random_logits(0, 50, 1000, 0)
    found = score(reference, reference.copy(), targets)
    assert np.abs(found.kld).max() < 1e-14
    assert found.same_top.all()


def test_large_logits_do_not_overflow() -> None:
    reference = np.array([[1e4, -1e4, 0]], np.float32)
    candidate = np.array([[-1e4, 1e4, 0]], np.float32)
    found = score(reference, candidate, np.array([0], np.int32))
    assert found.kld[0] == pytest.approx(2e4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_counted_and_left_out(bad: float) -> None:
    reference, candidate, targets = random_logits(0, 20, 30, 0.1)
    candidate[7, 3] = bad
    scores = score(reference, candidate, targets)
    assert list(np.flatnonzero(~scores.finite)) == [7]
    figures = summarize(scores, [20])
    assert (figures.tokens, figures.not_finite) == (20, 1)
    assert math.isfinite(figures.kld.value)


def test_scores_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = random_logits(1, 40, 100, 0.3)
    whole = score(*logits)
    monkeypatch.setattr("lfm2gguf.verification.measure.scores.ROW_BYTES", 8 * 100 * 3)
    pieces = score(*logits)
    for name in vars(whole):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


def llama_perplexity(scores: Scores) -> dict[str, float]:
    """The running sums of perplexity.cpp's kl_divergence (lines 1706-2010), as it prints them."""
    n = len(scores)

    def estimate(values: Any) -> tuple[float, float]:
        total, squares = sum(values), sum(v * v for v in values)
        f = total / n
        return f, math.sqrt(max(0.0, squares / n - f * f) / (n - 1))

    a, b = list(scores.nll_candidate), list(scores.nll_reference)
    (log_q, unc_q), (log_b, unc_b) = estimate(a), estimate(b)
    cov = (sum(x * y for x, y in zip(a, b, strict=True)) / n - log_q * log_b) / (n - 1)
    ratio_unc = math.sqrt(unc_q**2 + unc_b**2 - 2 * cov)
    ratio = math.exp(log_q - log_b)
    ppl, base = math.exp(log_q), math.exp(log_b)
    p = [math.exp(-x) - math.exp(-y) for x, y in zip(a, b, strict=True)]
    mse, mse_unc = estimate([x * x for x in p])
    top = sum(scores.same_top) / n
    difference = (ppl * unc_q) ** 2 + (base * unc_b) ** 2 - 2 * ppl * base * cov
    return {
        "ppl_candidate": ppl, "ppl_candidate±": ppl * unc_q,
        "ppl_reference": base, "ppl_reference±": base * unc_b,
        "correlation": cov / (unc_q * unc_b),
        "log_ppl_ratio": log_q - log_b, "log_ppl_ratio±": ratio_unc,
        "ppl_ratio": ratio, "ppl_ratio±": ratio * ratio_unc,
        "ppl_difference": ppl - base, "ppl_difference±": math.sqrt(difference),
        "kld": estimate(scores.kld)[0], "kld±": estimate(scores.kld)[1],
        "delta_p": estimate(p)[0], "delta_p±": estimate(p)[1],
        "delta_p_rms": math.sqrt(mse), "delta_p_rms±": 0.5 / math.sqrt(mse) * mse_unc,
        "same_top": top, "same_top±": math.sqrt(top * (1 - top) / (n - 1)),
    }  # fmt: skip


def test_figures_equal_the_running_sums_of_llama_perplexity() -> None:
    scores = score(*random_logits(3, 400, 60, 0.5))
    figures = summarize(scores, [255, 145])
    for name, expected in llama_perplexity(scores).items():
        found = getattr(figures, name.rstrip("±"))
        if name.endswith("±"):
            found = found.uncertainty
        elif name != "correlation":
            found = found.value
        assert found == pytest.approx(expected, rel=1e-6), name


def test_percentiles_interpolate_as_llama_perplexity_does() -> None:
    scores = score(*random_logits(4, 333, 40, 0.5))
    figures = summarize(scores, [333])
    for found, values in (
        (figures.kld_percentiles, np.sort(scores.kld)),
        (figures.delta_p_percentiles, np.sort(scores.delta_p)),
    ):
        for name, value in found.items():
            p = float(name) / 100 * (len(values) - 1)
            i = int(p)
            above = values[min(i + 1, len(values) - 1)]
            assert value == pytest.approx((1 - (p - i)) * values[i] + (p - i) * above), name


def test_two_passes_keep_what_running_sums_lose() -> None:
    values = 1e9 + np.array([0.0, 1.0, 2.0, 3.0])
    assert mean(values).uncertainty == pytest.approx(math.sqrt(1.25 / 3), rel=1e-9)


def test_chunks_are_cut_where_they_end() -> None:
    scores = score(*random_logits(5, 10, 9, 1))
    parts = split(scores, [3, 5, 2])
    assert [len(part) for part in parts] == [3, 5, 2]
    assert Scores.join(parts).kld.tolist() == scores.kld.tolist()
    chunks = summarize(scores, [3, 5, 2]).chunks
    assert [chunk.kld for chunk in chunks] == pytest.approx([part.kld.mean() for part in parts])


def test_nothing_finite_gives_nan_not_an_exception() -> None:
    reference, candidate, targets = random_logits(6, 4, 9, 1)
    figures = summarize(score(reference, np.full_like(candidate, np.nan), targets), [4])
    assert figures.not_finite == 4
    assert math.isnan(figures.kld.value)
    assert math.isnan(figures.chunks[0].kld)


def test_an_enormous_perplexity_stays_a_number() -> None:
    reference, candidate, targets = random_logits(7, 40, 9, 1)
    figures = summarize(score(reference, candidate * np.float32(1e6), targets), [40])
    assert math.isfinite(figures.ppl_candidate.value)
    assert figures.ppl_candidate.value > 1e100
