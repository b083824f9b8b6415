"""The exhaustive search of the IQ1 types: where sorted weights are split into three levels.

From ``quantize_row_iq1_*_impl`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098, one
sub-block per column. Levels 0, 1, 2 stand for -1, 0, 1, moved by an eighth up or down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.quants.codec import Bytes, Floats

Integers = npt.NDArray[np.signedinteger[Any]]

FLOAT_MAX = np.finfo(np.float32).max


@dataclass(frozen=True)
class Split:
    """For each column its scale, levels (sub-block, n), and whether levels were moved down.

    ``minus`` is (k, n), for each of k equal parts of the column; ``none`` are the columns that
    nothing fits.
    """

    scale: Floats
    levels: Bytes
    minus: Integers
    none: npt.NDArray[np.bool_]


class _Best:
    """The best of what was tried so far, column by column."""

    def __init__(self, n: int) -> None:
        self.scale = np.zeros(n, np.float32)
        self.score = np.full(n, -FLOAT_MAX, np.float32)
        self.choice = np.full(n, -1, np.int32)

    def offer(self, sum_qx: Floats, sum_q2: Floats, choices: Sequence[int]) -> None:
        """Try one row after the other; sums are (len(choices), n)."""
        squared, scale = sum_qx * sum_qx, sum_qx / sum_q2
        score, possible = scale * sum_qx, sum_q2 > 0
        for i, choice in enumerate(choices):
            better = possible[i] & (squared[i] > self.score * sum_q2[i])
            np.putmask(self.score, better, score[i])
            np.putmask(self.scale, better, scale[i])
            np.putmask(self.choice, better, choice)


def _running(values: Floats) -> Floats:
    """Sums of the first 0, 1, 2, ... rows."""
    zero = np.zeros((1, values.shape[1]), np.float32)
    return np.add.accumulate(np.concatenate([zero, values]), axis=0)


def _sorted(x: Floats, w: Floats) -> tuple[npt.NDArray[np.intp], Floats, Floats]:
    """Rows in order of their weights, and so their w * x and w."""
    order = np.argsort(x, axis=0, kind="stable")
    return order, np.take_along_axis(w * x, order, axis=0), np.take_along_axis(w, order, axis=0)


def _levels(order: npt.NDArray[np.intp], first: Integers, second: Integers) -> Bytes:
    """0 for the ``first`` of each column in order, 2 from the ``second`` on, 1 between."""
    rank = np.arange(len(order))[:, None]
    levels = np.empty(order.shape, np.uint8)
    in_order = (rank >= first).astype(np.uint8) + (rank >= second)
    np.put_along_axis(levels, order, in_order, axis=0)
    return levels


def best_split_s(x: Floats, w: Floats, values: Floats) -> Split:
    """Split the columns of ``x`` (32, n) as IQ1_S does; ``values`` are those of both moves."""
    size, n = x.shape
    order, wx, weights = _sorted(x, w)
    sum_x, sum_w = _running(wx), _running(weights)
    best = _Best(n)
    low = [((sum_x - sum_x[0]) * v[0], (sum_w - sum_w[0]) * v[0] * v[0]) for v in values]
    high = [((sum_x[-1] - sum_x) * v[2], (sum_w[-1] - sum_w) * v[2] * v[2]) for v in values]
    sums = np.empty((2, size + 1, 2, n), np.float32)
    for i in range(size + 1):
        rest = size + 1 - i
        for minus, v in enumerate(values):
            qx = (low[minus][0][i] + (sum_x[i:] - sum_x[i]) * v[1]) + high[minus][0][i:]
            q2 = (low[minus][1][i] + (sum_w[i:] - sum_w[i]) * v[1] * v[1]) + high[minus][1][i:]
            sums[0, :rest, minus], sums[1, :rest, minus] = qx, q2
        choices = [_choice(i, j, minus) for j in range(i, size + 1) for minus in (0, 1)]
        sum_qx, sum_q2 = sums[:, :rest].reshape(2, -1, n)
        best.offer(sum_qx, sum_q2, choices)
    return _split(best, order, best.choice[None] & 1)


def best_split_m(x: Floats, w: Floats) -> Split:
    """Split the columns of ``x`` (16, n) as IQ1_M does: each half is moved by itself.

    With running sums p the sum of w * x * q, and that of w * q * q, are of the form
    total * a + p[i] * b + p[j] * c.
    """
    size, n = x.shape
    order, wx, weights = _sorted(x, w)
    of_half = [order < size // 2, order >= size // 2]
    sum_x = [_running(np.where(half, wx, np.float32(0))) for half in of_half]
    sum_w = [_running(np.where(half, weights, np.float32(0))) for half in of_half]
    up, down = np.float32(1.125), np.float32(0.875)  # what level 2 stands for
    best = _Best(n)
    sums = np.empty((2, size + 1, 4, n), np.float32)
    for i in range(size + 1):
        rest = size + 1 - i
        qx, q2 = [], []
        for px, pw in zip(sum_x, sum_w, strict=True):
            both = px[i] + px[i:]
            qx.append((px[-1] * up - both, px[-1] * down - both))
            q2.append(
                (
                    pw[-1] * up * up + pw[i] * np.float32(0.75) + pw[i:] * np.float32(-1.25),
                    pw[-1] * down * down + pw[i] * np.float32(1.25) + pw[i:] * np.float32(-0.75),
                )
            )
        for k in range(4):
            sums[0, :rest, k] = qx[0][k >> 1] + qx[1][k & 1]
            sums[1, :rest, k] = q2[0][k >> 1] + q2[1][k & 1]
        choices = [_choice(i, j, k) for j in range(i, size + 1) for k in range(4)]
        sum_qx, sum_q2 = sums[:, :rest].reshape(2, -1, n)
        best.offer(sum_qx, sum_q2, choices)
    return _split(best, order, np.stack([best.choice >> 1 & 1, best.choice & 1]))


def _choice(i: int, j: int, minus: int) -> int:
    return i << 16 | j << 8 | minus


def _split(best: _Best, order: npt.NDArray[np.intp], minus: Integers) -> Split:
    first, second = best.choice >> 16, best.choice >> 8 & 255
    return Split(best.scale, _levels(order, first, second), minus, best.choice < 0)
