"""The exhaustive search of the IQ1 types, compiled, as in ``quants/splits.py``.

``quantize_row_iq1_*_impl`` of ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098: sixteen
sub-blocks side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm2gguf.quants.compiled.across import any_true
from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import load, splat, store, where
from lfm2gguf.quants.compiled.numbers import F32, I32, ZERO, inlined, kernel

LOWEST_SCORE = F32(-np.finfo(np.float32).max)
DELTA = F32(0.125)
LEAST_UP, LEAST_DOWN = F32(-0.875), F32(-1.125)  # what level 0 stands for, moved up or down
MOST_UP, MOST_DOWN = F32(1.125), F32(0.875)


@kernel
def rank(x: Any, size: int, ranks: Any) -> None:
    """Put the place of each weight, were its sub-block sorted stably, into ``ranks``."""
    for i in range(size):
        store(ranks, LANES * i, splat(I32(0), LANES))
    for i in range(size):
        own, place = load(x, LANES * i, LANES), load(ranks, LANES * i, LANES)
        for j in range(i + 1, size):
            before = load(x, LANES * j, LANES) < own
            place = place + where(before, splat(I32(1), LANES), I32(0))
            other = load(ranks, LANES * j, LANES)
            store(ranks, LANES * j, other + where(before, splat(I32(0), LANES), I32(1)))
        store(ranks, LANES * i, place)


@kernel
def running_sums(x: Any, w: Any, size: int, half: int, ranks: Any, work: Any, sums: Any) -> None:
    """Put the sums of w * x and of w over the first 0, 1, 2, ... weights in order into ``sums``.

    Over all, or over those of one ``half`` (0 or 1; -1: all) alone; ``sums`` are two planes.
    """
    n = size * LANES
    for at in range(2 * n):
        work[at] = ZERO
    for i in range(size):
        if half >= 0 and 2 * i // size != half:
            continue
        for lane in range(LANES):
            at, to = LANES * i + lane, LANES * ranks[LANES * i + lane] + lane
            work[to], work[n + to] = w[at] * x[at], w[at]
    sum_x, sum_w = splat(ZERO, LANES), splat(ZERO, LANES)
    store(sums[0], 0, sum_x)
    store(sums[1], 0, sum_w)
    for i in range(size):
        sum_x = sum_x + load(work, LANES * i, LANES)
        sum_w = sum_w + load(work, n + LANES * i, LANES)
        store(sums[0], LANES * (i + 1), sum_x)
        store(sums[1], LANES * (i + 1), sum_w)


@inlined
def is_better(sum_qx: Any, sum_q2: Any, best: Any) -> Any:
    """Return where a split is better than the best one."""
    return (sum_q2 > ZERO) & (sum_qx * sum_qx > load(best, LANES, LANES) * sum_q2)


@inlined
def offer(sum_qx: Any, sum_q2: Any, choice: Any, best: Any, choices: Any) -> None:
    """Take a split where it is better than the best one: ``best`` has scales and scores."""
    better, scale = is_better(sum_qx, sum_q2, best), sum_qx / sum_q2
    store(best, 0, where(better, scale, load(best, 0, LANES)))
    store(best, LANES, where(better, scale * sum_qx, load(best, LANES, LANES)))
    store(choices, 0, where(better, splat(I32(choice), LANES), load(choices, 0, LANES)))


@inlined
def nothing_yet(best: Any, choices: Any) -> None:
    """Begin a search."""
    store(best, 0, splat(ZERO, LANES))
    store(best, LANES, splat(LOWEST_SCORE, LANES))
    store(choices, 0, splat(I32(-1), LANES))


@kernel
def best_split_s(x: Any, w: Any, size: int, ranks: Any, work: Any, best: Any, choices: Any) -> None:
    """Split 16 sub-blocks of 32 weights as IQ1_S does, and all of them moved up or down.

    ``choices`` are i << 16 | j << 8 and 1 for down: below i are levels 0, from j on levels 2.
    """
    sums, above = work[1024:2112].reshape(2, 544), work[2112:4288].reshape(4, 544)
    running_sums(x, w, size, -1, ranks, work, sums)
    sum_x, sum_w = sums[0], sums[1]
    all_x, all_w = load(sum_x, LANES * size, LANES), load(sum_w, LANES * size, LANES)
    for j in range(size + 1):
        left = all_x - load(sum_x, LANES * j, LANES)
        store(above[0], LANES * j, left * MOST_UP)
        store(above[1], LANES * j, left * MOST_DOWN)
        left = all_w - load(sum_w, LANES * j, LANES)
        store(above[2], LANES * j, left * MOST_UP * MOST_UP)
        store(above[3], LANES * j, left * MOST_DOWN * MOST_DOWN)
    nothing_yet(best, choices)
    for i in range(size + 1):
        x_i, w_i = load(sum_x, LANES * i, LANES), load(sum_w, LANES * i, LANES)
        x_up, x_down = x_i * LEAST_UP, x_i * LEAST_DOWN
        w_up, w_down = w_i * LEAST_UP * LEAST_UP, w_i * LEAST_DOWN * LEAST_DOWN
        for j in range(i, size + 1):
            between = (load(sum_x, LANES * j, LANES) - x_i) * DELTA
            weights = (load(sum_w, LANES * j, LANES) - w_i) * DELTA * DELTA
            choice = I32(i << 16 | j << 8)
            up_qx = x_up + between + load(above[0], LANES * j, LANES)
            up_q2 = w_up + weights + load(above[2], LANES * j, LANES)
            qx = x_down - between + load(above[1], LANES * j, LANES)
            q2 = w_down + weights + load(above[3], LANES * j, LANES)
            if any_true(is_better(up_qx, up_q2, best) | is_better(qx, q2, best)):
                offer(up_qx, up_q2, choice, best, choices)
                offer(qx, q2, choice | I32(1), best, choices)


@inlined
def of_half(sums: Any, i: int, j: int, size: int) -> Any:
    """Return one half's sums of w * x * q, and of w * q * q, moved up and down."""
    all_x, all_w = load(sums[0], LANES * size, LANES), load(sums[1], LANES * size, LANES)
    both = load(sums[0], LANES * i, LANES) + load(sums[0], LANES * j, LANES)
    w_i, w_j = load(sums[1], LANES * i, LANES), load(sums[1], LANES * j, LANES)
    up = all_w * MOST_UP * MOST_UP + w_i * F32(0.75) + w_j * F32(-1.25)
    down = all_w * MOST_DOWN * MOST_DOWN + w_i * F32(1.25) + w_j * F32(-0.75)
    return all_x * MOST_UP - both, all_x * MOST_DOWN - both, up, down


@kernel
def best_split_m(x: Any, w: Any, size: int, ranks: Any, work: Any, best: Any, choices: Any) -> None:
    """Split 16 sub-blocks of 16 weights as IQ1_M does, each half of them moved up or down.

    ``choices`` are i << 16 | j << 8 | 2 if the first half is moved down | 1 if the second is.
    """
    first, second = work[1024:1568].reshape(2, 272), work[1568:2112].reshape(2, 272)
    running_sums(x, w, size, 0, ranks, work, first)
    running_sums(x, w, size, 1, ranks, work, second)
    nothing_yet(best, choices)
    for i in range(size + 1):
        for j in range(i, size + 1):
            x_up, x_down, w_up, w_down = of_half(first, i, j, size)
            other_x_up, other_x_down, other_w_up, other_w_down = of_half(second, i, j, size)
            choice = I32(i << 16 | j << 8)
            up_up, w_up_up = x_up + other_x_up, w_up + other_w_up
            up_down, w_up_down = x_up + other_x_down, w_up + other_w_down
            down_up, w_down_up = x_down + other_x_up, w_down + other_w_up
            down_down, w_down_down = x_down + other_x_down, w_down + other_w_down
            better = is_better(up_up, w_up_up, best) | is_better(up_down, w_up_down, best)
            better = better | is_better(down_up, w_down_up, best)
            if any_true(better | is_better(down_down, w_down_down, best)):
                offer(up_up, w_up_up, choice, best, choices)
                offer(up_down, w_up_down, choice | I32(1), best, choices)
                offer(down_up, w_down_up, choice | I32(2), best, choices)
                offer(down_down, w_down_down, choice | I32(3), best, choices)
