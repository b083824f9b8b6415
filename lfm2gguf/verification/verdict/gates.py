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
CALIBRATED, WEIGHED = "lfm2gguf.calibration.method", "quantize.imatrix."
WEIGHTS = "weights near the checkpoint's"
EXACT = ("F32", "F16", "BF16")
# Settings that must be the config's: of the forward pass, and of a retrieval model.
CONFIG = ("layers", "heads", "kv_heads", "norm_eps", "rope_theta")
RETRIEVAL = ("bidirectional", "pooling", "dense")


@dataclass(frozen=True)
class Room:
    """What a way of rounding may do to weights.

    ``run`` is in units of the type's limit on a run of 32 weights, ``excess`` a tensor's error in
    units of plain rounding's.
    """

    run: float
    excess: float


# As measured by tests/benchmarks/type_limits.py. Plain rounding by any build of llama.cpp is 1.00.
# With an importance matrix up to 1.07 was seen on the example model, and 1.29 with importance
# that varies over columns as no model's does (log-normal, of two natural logarithms). Feedback
# moves weights on purpose, up to 6.5 times what rounding alone does to them.
PLAIN, IMPORTANCE, FEEDBACK = Room(1.0, 1.1), Room(1.0, 1.3), Room(8.0, 8.0)


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


def room_of(file: GGUFFile, differences: Sequence[TensorDifference]) -> Room:
    """Return what the weights of a file may be off by, by how it was rounded.

    A calibrated file says so, and so does one with an importance matrix. One of another program
    (GPTQ, AutoRound) shows it: most of its tensors are further from the checkpoint's than
    rounding alone takes them, while a fault is in few. What such a file is worth, its outputs say.
    """
    if CALIBRATED in file.metadata:
        return FEEDBACK
    room = IMPORTANCE if any(key.startswith(WEIGHED) for key in file.metadata) else PLAIN
    found = [d.excess for d in differences if d.type not in EXACT]
    return FEEDBACK if found and statistics.median(found) > room.excess else room


def tensor_gate(differences: Sequence[TensorDifference], room: Room = PLAIN) -> Iterator[Gate]:
    """Yield the gate of the tensor that comes nearest to its limit, as a share of it."""
    known = [(d, _share(d, room)) for d in differences if d.type in TENSOR_LIMITS]
    if not known:
        return
    worst, share = max(known, key=lambda pair: (math.isnan(pair[1]), pair[1]))
    yield Gate(
        WEIGHTS,
        share,
        1.0,
        percent=True,
        detail=f"{worst.name}: a run of 32 {worst.type} weights is off by {worst.worst:.3g} "
        f"of its size, the whole tensor by {worst.rms:.3g}, {worst.excess:.2f} times what "
        f"{worst.type} loses",
    )


def _share(difference: TensorDifference, room: Room) -> float:
    """Return how much of what it may be off by a tensor takes."""
    run = difference.worst / TENSOR_LIMITS[difference.type].run
    if difference.type in EXACT:
        return run
    beyond = (difference.excess - 1) / (room.excess - 1)
    return float(np.maximum(run / room.run, beyond))


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
