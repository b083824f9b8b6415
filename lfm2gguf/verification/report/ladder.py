"""The ladder of types as a picture: what each file loses, over its bits per weight."""

from __future__ import annotations

from collections.abc import Sequence

from lfm2gguf.rendering import Line, Panel
from lfm2gguf.verification.measure.figures import Figures
from lfm2gguf.verification.measure.similarity import Similarity
from lfm2gguf.verification.verdict.result import Verification

MOST_BITS = 12.0  # files of 16 and 32 bits lose next to nothing, and would push the others together

# Llama 3 8B beside its own FP16, llama.cpp's table (tools/perplexity/README.md, commit 0c1e57098):
# model size in GiB, mean KL divergence in nats. The K-quants and Q8_0.
PUBLISHED_WEIGHTS = 8_030_261_248
PLAIN = (
    ("Q8_0", 7.96, 0.001355), ("Q6_K", 6.14, 0.005452), ("Q5_K_M", 5.33, 0.010762),
    ("Q5_K_S", 5.21, 0.016595), ("Q4_K_M", 4.58, 0.031273), ("Q4_K_S", 4.37, 0.043136),
    ("Q3_K_L", 4.03, 0.087176), ("Q3_K_M", 3.74, 0.101913), ("Q3_K_S", 3.41, 0.228217),
)  # fmt: skip
WEIGHED = (  # the same with an importance matrix of 10 million tokens of WikiText
    ("Q4_K_M", 4.58, 0.028152), ("Q4_K_S", 4.37, 0.031951), ("IQ4_NL", 4.35, 0.035742),
    ("IQ4_XS", 4.14, 0.036334), ("Q3_K_L", 4.03, 0.073077), ("Q3_K_M", 3.74, 0.084358),
    ("IQ3_M", 3.53, 0.102534), ("IQ3_S", 3.42, 0.111278), ("IQ3_XS", 3.28, 0.138693),
    ("IQ3_XXS", 3.05, 0.183625),
)  # fmt: skip
SOURCE = "Llama 3 8B, llama.cpp's table"


def ladder(results: Sequence[Verification]) -> Panel | None:
    """Return the picture of files that were judged together; None where none is quantized.

    Of a text model the mean KL divergence, beside Llama 3 8B's as llama.cpp published it; of a
    retrieval model how far the mean cosine is from 1.
    """
    drawn = sorted((r for r in results if 0 < r.bits_per_weight < MOST_BITS), key=_bits)
    own = [(r.type, r.bits_per_weight, loss(r)) for r in drawn if loss(r) > 0]
    if not own:
        return None
    lines = [_line(results[0].reference, own)]
    if isinstance(next(iter(drawn[0].stages.values())), Similarity):
        return Panel("Distance over size", "bits per weight", "1 - mean cosine", lines)
    lines += [
        _line(SOURCE, _published(PLAIN)),
        _line(f"{SOURCE}, with an importance matrix", _published(WEIGHED)),
    ]
    return Panel("KL divergence over size", "bits per weight", "mean KL divergence (nats)", lines)


def loss(result: Verification) -> float:
    """Return what a file lost, as shipped: nats, or the distance of the mean cosine from 1."""
    shipped = result.shipped
    return shipped.kld.value if isinstance(shipped, Figures) else 1 - shipped.cosine.value


def _bits(result: Verification) -> float:
    return result.bits_per_weight


def _published(rows: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    bits = 8 * 2**30 / PUBLISHED_WEIGHTS
    return sorted(((name, gib * bits, kld) for name, gib, kld in rows), key=lambda row: row[1])


def _line(label: str, points: Sequence[tuple[str, float, float]]) -> Line:
    names, bits, losses = zip(*points, strict=True)
    return Line(label, bits, losses, names)
