"""From figures to a verdict: each gate has a value, a limit and a margin."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.verification.limits import (
    RUNTIME_LIMITS,
    TENSOR_LIMITS,
    WORST_CHUNK,
    WORST_TEXT,
    SimilarityLimits,
    TextLimits,
)
from lfm2gguf.verification.measure.engine import RUNTIME, SHIPPED
from lfm2gguf.verification.measure.figures import Figures
from lfm2gguf.verification.measure.measurement import Measured
from lfm2gguf.verification.measure.scores import Scores
from lfm2gguf.verification.measure.similarity import BEST, Similarity
from lfm2gguf.verification.measure.tensors import TensorDifference

SIGMAS = 2.0
# Weights rounded with error feedback are moved on purpose: up to 6.5 times what rounding alone
# does to the worst tensor was seen, 1.2 to 1.45 times in most.
CALIBRATED = "lfm2gguf.calibration.method"
FEEDBACK_ROOM = 8.0
MOVED = 1.1  # of the noise of weights with heavy tails, over which rounding alone stays rarely
EXACT = ("F32", "F16", "BF16")
# Settings that must be the config's: of the forward pass, and of a retrieval model.
CONFIG = ("layers", "heads", "kv_heads", "norm_eps", "rope_theta")
RETRIEVAL = ("bidirectional", "pooling", "dense")


@dataclass(frozen=True)
class Gate:
    """One check. It passes if the value is not beyond the limit by more than the tolerance."""

    name: str
    value: float
    limit: float
    relation: str = "<="  # or ">="
    tolerance: float = 0.0  # what the sampling of the text may add; never from the candidate
    percent: bool = False  # how a person reads the numbers
    detail: str = ""
    stage: str = SHIPPED  # of a three-way verification: which pair was compared

    @property
    def title(self) -> str:
        """The name, with the stage if it is not the file as shipped."""
        return self.name if self.stage == SHIPPED else f"{self.name} ({self.stage})"

    @property
    def margin(self) -> float:
        """How far the value is on the right side of limit and tolerance; negative if it failed."""
        room = self.limit - self.value if self.relation == "<=" else self.value - self.limit
        return room + self.tolerance

    @property
    def passed(self) -> bool:
        """Whether the check passed; NaN and infinity never do."""
        return math.isfinite(self.value) and self.margin >= 0


def stage_gates(measured: Measured, limits: TextLimits | SimilarityLimits) -> Iterator[Gate]:
    """Yield the gates of all that was measured on the text: the tokens, then stage by stage.

    What llama.cpp does to the dequantized file has limits of its own, whatever the type.
    """
    if measured.tokens:
        differs = int(not measured.tokens.same)
        yield Gate("same tokens as the tokenizer", differs, 0, detail=measured.tokens.detail)
    for stage, figures in measured.stages.items():
        if isinstance(figures, Similarity):
            assert isinstance(limits, SimilarityLimits)
            allowed = RUNTIME_LIMITS.similarity if stage == RUNTIME else limits
            found = similarity_gates(figures, allowed)
        else:
            assert isinstance(limits, TextLimits)
            allowed_text = RUNTIME_LIMITS.text if stage == RUNTIME else limits
            found = figure_gates(figures, measured.scores[stage], allowed_text)
        yield from (replace(gate, stage=stage) for gate in found)


def figure_gates(figures: Figures, scores: Scores, limits: TextLimits) -> Iterator[Gate]:
    """Yield the gates of one comparison of a text model's predictions."""
    yield Gate("finite logits", figures.not_finite, 0, detail="positions with NaN or inf")
    yield Gate(
        "perplexity increase",
        figures.ppl_ratio.value - 1,
        limits.max_ppl_increase,
        tolerance=SIGMAS * tolerated_ratio_error(scores, limits.max_kld),
        percent=True,
    )
    yield Gate("mean KL divergence", figures.kld.value, limits.max_kld)
    chunks = [chunk.kld for chunk in figures.chunks]
    worst = max(range(len(chunks)), key=lambda i: (math.isnan(chunks[i]), chunks[i]))
    yield Gate(
        "KL divergence of the worst chunk",
        chunks[worst],
        WORST_CHUNK * limits.max_kld,
        detail=f"chunk {worst + 1} of {len(chunks)}",
    )
    yield Gate("same top token", figures.same_top.value, limits.min_top1, ">=", percent=True)


def similarity_gates(figures: Similarity, limits: SimilarityLimits) -> Iterator[Gate]:
    """Yield the gates of one comparison of a retrieval model's vectors.

    Rankings are few, so their means have a tolerance: a query's correlation falls short of 1 by
    an amount that spreads about as much as it is large, and each of the best documents is shared
    or not. Both are taken from the limits, so that a broken file cannot widen what it is held to.
    """
    yield Gate("finite vectors", figures.not_finite, 0, detail="vectors with NaN or inf")
    yield Gate("mean cosine", figures.cosine.value, limits.min_cosine, ">=")
    worst = min(
        range(len(figures.cosines)),
        key=lambda i: (not math.isnan(figures.cosines[i]), figures.cosines[i]),
    )
    yield Gate(
        "cosine of the worst text",
        figures.cosines[worst],
        1 - WORST_TEXT * (1 - limits.min_cosine),
        ">=",
        detail=f"{('query', 'document')[worst % 2]} {worst // 2 + 1} of {figures.queries}",
    )
    queries = figures.queries
    yield Gate(
        "rank correlation",
        figures.rank_correlation.value,
        limits.min_rank,
        ">=",
        tolerance=SIGMAS * (1 - limits.min_rank) / math.sqrt(queries),
    )
    yield Gate(
        f"same among the best {BEST}",
        figures.best_overlap.value,
        limits.min_overlap,
        ">=",
        tolerance=SIGMAS
        * math.sqrt(limits.min_overlap * (1 - limits.min_overlap) / BEST / queries),
        percent=True,
    )


def tolerated_ratio_error(scores: Scores, kld: float) -> float:
    """Return the standard error of ln(PPL ratio) that a file exactly at the KLD limit would show.

    It is the reference's own: independent noise of variance s² on its logits gives a mean KL
    divergence of s²/2 * mean(1 - sum p²) and a paired variance at a token of probability p_x
    of s² * (1 - 2 p_x + sum p²), to second order. With s² from the limit, the candidate has
    no part in it, so that a broken file cannot widen what it is held to.
    """
    spread = float((1 - scores.collision).mean())
    if spread <= 0:  # a reference that is certain everywhere has nothing to be uncertain about
        return 0.0
    paired = float((1 - 2 * np.exp(-scores.nll_reference) + scores.collision).mean())
    return math.sqrt(2 * kld / spread * paired / len(scores))


def nearest_to_its_limit(
    differences: Sequence[TensorDifference], *, feedback: bool = False
) -> tuple[TensorDifference, float] | None:
    """Return the tensor that comes nearest to its limit, and the share of it that it takes."""
    known = [(d, d.worst / _limit(d, feedback)) for d in differences if d.type in TENSOR_LIMITS]
    return max(known, key=lambda pair: pair[1], default=None)


def _limit(difference: TensorDifference, feedback: bool) -> float:
    """Return what a run may be off by; with feedback, weights of quantized types move further."""
    limit = TENSOR_LIMITS[difference.type].run
    moves = feedback and difference.type not in EXACT
    return limit * FEEDBACK_ROOM if moves else limit


def rounded_with_feedback(file: GGUFFile, differences: Sequence[TensorDifference]) -> bool:
    """Return whether a file's weights were moved on purpose, so that outputs lose less.

    A file of ``lfm2gguf calibrate`` says so. One of another program (GPTQ, AutoRound) shows it:
    most of its tensors are further from the checkpoint's than rounding alone takes them, while a
    fault is in few. What such a file is worth, its outputs say.
    """
    if CALIBRATED in file.metadata:
        return True
    shares = [d.rms / TENSOR_LIMITS[d.type].noise for d in differences
              if d.type in TENSOR_LIMITS and d.type not in EXACT]  # fmt: skip
    return bool(shares) and statistics.median(shares) > MOVED


def tensor_gate(
    differences: Sequence[TensorDifference], *, feedback: bool = False
) -> Iterator[Gate]:
    """Yield the gate of the tensor that comes nearest to its limit, as a share of it.

    ``feedback``: the file was rounded with error feedback (:func:`rounded_with_feedback`).
    """
    if not (found := nearest_to_its_limit(differences, feedback=feedback)):
        return
    worst, share = found
    yield Gate(
        "weights near the checkpoint's",
        share,
        1.0,
        percent=True,
        detail=f"{worst.name}: a run of 32 {worst.type} weights is off by {worst.worst:.3g} "
        f"of its size, the whole tensor by {worst.rms:.3g}",
    )


def metadata_gate(*compared: tuple[object, object, Sequence[str]]) -> Gate:
    """Return whether the settings in the file are the checkpoint's: found, expected, names."""
    different = [
        f"{name} is {a}, not {b}"
        for found, expected, names in compared
        for name in names
        if not _same(a := getattr(found, name), b := getattr(expected, name))
    ]
    return Gate("settings of the checkpoint", len(different), 0, detail="; ".join(different))


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):  # a file holds float32
        return math.isclose(a, b, rel_tol=1e-6)
    return a == b
