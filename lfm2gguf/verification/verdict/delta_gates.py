"""From what tensors carry of an adapter's delta to gates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from lfm2gguf.verification.measure.deltas import TensorDelta, together
from lfm2gguf.verification.verdict.gates import PLAIN, Gate, Room

SIGMAS = 5.0  # of the projection's standard error
MAX_DEVIATION = 0.1  # of a projection from 1, beside the noise
TELLING = 0.3  # a tensor whose noise is larger than this does not testify by itself


def delta_gates(
    deltas: Sequence[TensorDelta], grown: Mapping[str, float], room: Room = PLAIN
) -> Iterator[Gate]:
    """Yield gates of the tensor that carries least, of all of them together, and of the others.

    ``grown`` is the error of each tensor that the adapter leaves alone, as
    :func:`~lfm2gguf.verification.measure.deltas.growth` gives it, and ``room`` what it may be.
    """
    telling = [d for d in deltas if SIGMAS * d.noise <= TELLING]
    if telling:
        worst = max(telling, key=lambda d: (math.isnan(d.share), _excess(d)))
        yield _departure("worst tensor", worst.share, worst.noise,
                         f"{worst.name} carries {worst.share:.3f} of it; "
                         f"{len(telling)} of {len(deltas)} tensors can tell")  # fmt: skip
    share, noise = together(deltas)
    detail = f"{share:.4f} of it"
    if SIGMAS * noise > TELLING:
        detail += (
            ", which noise of quantization may hide: judge a finer type of the same model, such "
            "as Q8_0"
        )
    yield _departure("all tensors", share, min(noise, TELLING / SIGMAS), detail)
    if grown:
        name = max(grown, key=lambda name: grown[name])
        yield Gate("other tensors are the base's", grown[name], room.excess,
                   detail=f"{name}: error in units of that of quantizing the base's")  # fmt: skip


def _excess(delta: TensorDelta) -> float:
    """Return how far a tensor is from carrying all of it, beyond what noise explains."""
    return abs(delta.share - 1) - SIGMAS * delta.noise


def _departure(of: str, share: float, noise: float, detail: str) -> Gate:
    return Gate(
        f"departure from the adapter's delta, {of}", abs(share - 1), MAX_DEVIATION,
        tolerance=SIGMAS * noise, percent=True, detail=detail,
    )  # fmt: skip
