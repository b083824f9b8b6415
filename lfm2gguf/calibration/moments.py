"""Second moments of what a linear layer sees, and what it should make up for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.grids import Floats
from lfm2gguf.calibration.products import FLOAT32, Features, Products
from lfm2gguf.calibration.streams import Inputs
from lfm2gguf.calibration.triangles import by_lower, by_upper
from lfm2gguf.crew import ALONE, Crew, pieces

# Damping follows the features per token: with few tokens the off-diagonal moments are noise.
FEATURES_PER_TOKEN = 1.5
LEAST_DAMPING, MOST_DAMPING = 0.1, 1.0
CORRECTION = 0.7  # the share of earlier layers' errors that is made up for
PANEL = 512  # columns of moments that are summed together

Panel: TypeAlias = tuple[slice, npt.NDArray[np.float64]]  # columns, and sums from their diagonal on


@dataclass
class Moments:
    """Means over the tokens of one layer's inputs, float32, summed in float64.

    ``mean`` (columns, columns) is that of ``y yᵀ``, of the quantized stream. ``cross`` is that of
    ``(x - y) yᵀ``, what earlier layers lost; where the output ``joins`` the residual (rows,
    columns) of what the output should be, times ``yᵀ``. It is None where there is neither.
    """

    mean: Floats
    cross: Floats | None
    joins: bool
    tokens: int

    @property
    def damping(self) -> float:
        """The share of the mean diagonal that is added to the diagonal."""
        needed = FEATURES_PER_TOKEN * len(self.mean) / max(self.tokens, 1)
        return float(np.clip(needed, LEAST_DAMPING, MOST_DAMPING))

    @property
    def missing(self) -> float:
        """The share of the tokens that are missing for there to be one for each column."""
        return max(0.0, 1 - self.tokens / len(self.mean))

    def towards(self, layer: Moments) -> None:
        """Take the missing share from a whole layer's moments; what is not known is not corrected.

        An expert that few tokens reach has moments that say little of others, and its
        corrections are noise.
        """
        own, other = np.float32(1 - self.missing), np.float32(self.missing)
        self.mean *= own
        self.mean += other * layer.mean
        if self.cross is not None:
            self.cross *= own

    def lacking(self, weights: dict[str, Floats], crew: Crew = ALONE) -> Floats | None:
        """Return what is to be made up for, times ``yᵀ``: of the input, or of the output.

        Of an output that joins the residual it is what the one weight does not yet give.
        """
        if not self.joins or self.cross is None:
            return self.cross
        [weight] = weights.values()
        return self.cross - crew.product(weight, self.mean)


def gather(
    inputs: Iterable[Inputs], columns: int, crew: Crew = ALONE, products: Products = FLOAT32
) -> Moments:
    """Average over what weights of so many columns see."""
    panels = pieces(columns, PANEL)
    square = [np.zeros((p.stop - p.start, columns - p.start)) for p in panels]
    cross: npt.NDArray[np.float64] | None = None
    tokens, joins = 0, False
    for block in inputs:
        y, joins = products.features(block.y, crew), block.wanted is not None
        crew.all(partial(_add_square, y), zip(panels, square, strict=True))
        other = block.wanted if block.x is None else block.x - block.y
        if other is not None:
            if cross is None:
                cross = np.zeros((other.shape[1], columns))
            add = partial(_add_cross, cross, products.features(other, crew), y)
            crew.all(add, pieces(other.shape[1], PANEL))
        tokens += len(block.y)
    count = max(tokens, 1)
    mean = np.empty((columns, columns), np.float32)
    crew.all(partial(_mirror, count, mean), zip(panels, square, strict=True))
    return Moments(mean, None if cross is None else _mean(cross, count), joins, tokens)


def _mean(total: npt.NDArray[np.float64], count: int) -> Floats:
    total /= count
    return total.astype(np.float32)


def _add_square(y: Features, panel: Panel) -> None:
    """Add a panel of ``yᵀ y``, from the diagonal on: the rest is the same."""
    here, total = panel
    y.add_product(here, y, here.start, total)


def _add_cross(cross: npt.NDArray[np.float64], x: Features, y: Features, panel: slice) -> None:
    x.add_product(panel, y, 0, cross[panel])


def _mirror(count: int, mean: Floats, panel: Panel) -> None:
    here, total = panel
    total /= count
    mean[here, here.start :] = total
    mean[here.start :, here] = total.T


def damp(mean: Floats, share: float) -> None:
    """Make moments such as can be factored: add a share of the mean diagonal to it."""
    average = np.float32(mean.diagonal().mean(dtype=np.float64)) or np.float32(1)
    mean[np.diag_indices_from(mean)] += np.float32(share) * average


def targets(
    weights: dict[str, Floats], lacking: Floats | None, joins: bool, triangle: Floats, crew: Crew
) -> Iterator[tuple[str, Floats]]:
    """Give each weight's target (columns, rows): itself, and most of what its input has lost.

    ``lacking`` is what :meth:`Moments.lacking` gave before the damping, ``triangle`` the factor
    of the damped moments' inverse, ``triangleᵀ @ triangle``.
    """
    change = None
    if lacking is not None:
        change = by_upper(by_lower(lacking, triangle.T, crew), triangle, crew)
        change *= np.float32(CORRECTION)
    for name, weight in weights.items():
        target = weight
        if change is not None:
            target = weight + (change if joins else crew.product(weight, change))
        yield name, target.T
