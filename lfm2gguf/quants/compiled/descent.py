"""Searches that move one level at a time: ``make_q3_quants`` and ``make_qp_quants``, compiled.

From ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098. A sub-block of which no level has moved
in a pass would not move in another, so that all lanes may go on while one of them does.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import (
    absolute,
    any_true,
    joined,
    least,
    load,
    most,
    splat,
    store,
    to_float,
    transpose,
    where,
)
from lfm2gguf.quants.compiled.numbers import (
    F32,
    I32,
    ONE,
    TENTH,
    ZERO,
    inlined,
    kernel,
    level,
    nearest_int,
    quick_level,
)
from lfm2gguf.quants.compiled.search import EPSILON

PASSES = 5
SIZE = 16  # weights in a sub-block, and sub-blocks in a super-block
PAIR = 2 * LANES
TEAM = 2 * LANES  # sub-blocks whose levels are moved side by side: fewer wait for their divisions,
# and of more there is rather one that others wait for
CLOSE = F32(0.499)  # nearer to a level than this, whatever rounding does, is nearest to it
LEFT_OVER = F32(1 / 512)  # the part of a sum that has to be left for that to be so


@inlined
def load_pair(planes: Any, at: int) -> Any:
    """Return a number of two sub-blocks of 16 weights that follow each other."""
    return joined(load(planes, at, LANES), load(planes, at + SIZE * LANES, LANES))


@kernel
def set_levels(x: Any, at: int, levels: Any, nmax: Any, sums: Any, found: Any, to: int) -> None:
    """Set the levels of two sub-blocks of 16 blocks as C does before it moves them.

    ``sums`` gets both sums, which are 0 of an empty sub-block; ``found`` from plane 1 on the
    factors that make the levels, 1 where it is empty, and 1 where it is restless. That it is if
    a level might move: if, under these sums, it is not safely the nearest to
    ``v * less_l2 / less_lx`` (see :func:`signed_step`), or v * sum_l2 - level * sum_lx, which is
    the same as their difference times less_lx, not small. Three sub-blocks in four are at rest.
    """
    peak, far = splat(ZERO, PAIR), splat(ZERO, PAIR)
    for i in range(SIZE):
        v = load_pair(x, at + LANES * i)
        distance = absolute(v)
        further = distance > far
        far, peak = where(further, distance, far), where(further, v, peak)
    factor = (ZERO - nmax) / peak
    sum_lx, sum_l2 = splat(ZERO, PAIR), splat(ZERO, PAIR)
    for i in range(SIZE):
        v = load_pair(x, at + LANES * i)
        rung = quick_level(factor * v, ZERO - nmax, nmax - ONE)  # at most nmax before rounding
        store(levels, PAIR * i, rung)
        sum_lx = sum_lx + v * v * v * rung
        sum_l2 = sum_l2 + v * v * rung * rung
    least_left = sum_lx * LEFT_OVER
    at_rest = far == far
    for i in range(SIZE):
        v, rung = load_pair(x, at + LANES * i), load(levels, PAIR * i, PAIR)
        left = sum_lx - v * v * v * rung
        off, close = v * sum_l2 - rung * sum_lx, CLOSE * left
        near = ((off < close) | (rung == nmax - ONE)) & (
            (off > ZERO - close) | (rung == ZERO - nmax)
        )
        at_rest = at_rest & ((left <= ZERO) | ((left > least_left) & near))
    empty, one = far < EPSILON, splat(ONE, PAIR)
    store(sums[0], to, where(empty, ZERO, sum_lx))
    store(sums[1], to, where(empty, ZERO, sum_l2))
    store(found[1], to, factor)
    store(found[2], to, where(empty, one, ZERO))
    store(found[3], to, where(at_rest | empty, ZERO, one))


@inlined
def signed_step(v: Any, rung: Any, sum_lx: Any, sum_l2: Any, low: Any, high: Any) -> Any:
    """Return whether the level of each lane's weight moves; the level and sums if it does."""
    weight = v * v
    less_lx = sum_lx - weight * v * rung
    less_l2 = sum_l2 - weight * rung * rung
    new = to_float(level(v * less_l2 / less_lx, low, high))
    new_lx, new_l2 = less_lx + weight * v * new, less_l2 + weight * new * new
    move = (less_lx > ZERO) & (new != rung) & (new_l2 > ZERO)
    move = move & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
    return move, new, new_lx, new_l2


@kernel
def move_levels(v: Any, levels: Any, nmax: Any, team: Any) -> None:
    """Set the levels of a team of sub-blocks, and move them until none moves any more.

    ``team`` has the planes of both sums and of factors. The sums are left alone where no level
    moves: as that is what the processor expects, the next step need not wait for it.
    """
    low, high = I32(ZERO - nmax), I32(nmax - ONE)
    sum_lx, sum_l2 = load(team, 0, TEAM), load(team, TEAM, TEAM)
    factor = load(team, 2 * TEAM, TEAM)
    for i in range(SIZE):
        rung = quick_level(factor * load(v, TEAM * i, TEAM), ZERO - nmax, nmax - ONE)
        store(levels, TEAM * i, rung)
    quiet = 0  # steps since a level was moved: behind those of all others none will
    for step in range(PASSES * SIZE):
        i = step % SIZE
        x, rung = load(v, TEAM * i, TEAM), load(levels, TEAM * i, TEAM)
        moves, new, new_lx, new_l2 = signed_step(x, rung, sum_lx, sum_l2, low, high)
        if any_true(moves):
            store(levels, TEAM * i, where(moves, new, rung))
            sum_lx, sum_l2 = where(moves, new_lx, sum_lx), where(moves, new_l2, sum_l2)
            quiet = 0
        else:
            quiet += 1
            if quiet == SIZE:
                break
    store(team, 0, sum_lx)
    store(team, TEAM, sum_l2)


@kernel
def descend(
    x: Any, planes: Any, levels: Any, nmax: Any, room: Any, chosen: Any, found: Any
) -> None:
    """Fit x = scale * level, weighed by x², one level after another (``make_q3_quants``).

    For the sub-blocks of 16 super-blocks, of which those that are not at rest are ``chosen``:
    ``levels``, which lie like ``x``, get theirs, from ``-nmax`` on. The planes ``found`` are the
    scales and what :func:`set_levels` has.
    """
    sums, team = room[:512].reshape(2, 256), room[512:608]
    v, own, rows = room[1024:1536], room[1536:2048], room[2048:2560]
    for j in range(0, SIZE, 2):
        set_levels(planes, SIZE * LANES * j, own, nmax, sums, found, LANES * j)
    n = 0
    for s in range(SIZE * LANES):
        chosen[n] = s
        n += found[3, s] == ONE
    for first in range(0, n, TEAM):
        count = min(TEAM, n - first)
        for k in range(TEAM):
            s = chosen[first + min(k, count - 1)]  # where there are too few, the last one again
            team[k], team[TEAM + k], team[2 * TEAM + k] = sums[0, s], sums[1, s], found[1, s]
            store(rows, SIZE * k, load(x, SIZE * (s % LANES * SIZE + s // LANES), SIZE))
        for k in range(0, TEAM, LANES):
            transpose(rows, SIZE * k, SIZE, v, k, TEAM)
        move_levels(v, own, nmax, team)
        for k in range(0, TEAM, LANES):
            transpose(own, k, TEAM, rows, SIZE * k, SIZE)
        for k in range(count):
            s = chosen[first + k]
            sums[0, s], sums[1, s] = team[k], team[TEAM + k]
            store(levels, SIZE * (s % LANES * SIZE + s // LANES), load(rows, SIZE * k, SIZE))
    for j in range(SIZE):
        sum_lx, sum_l2 = load(sums[0], LANES * j, LANES), load(sums[1], LANES * j, LANES)
        store(found[0], LANES * j, where(sum_l2 > ZERO, sum_lx / sum_l2, ZERO))


@inlined
def wrapped(levels: Any) -> Any:
    """Return what a uint8 leaves of integers, as float32."""
    return to_float(levels & I32(255))


@kernel
def positive_scale(x: Any, w: Any, n: int, nmax: int, levels: Any, scales: Any) -> None:
    """Fit x = scale * level to ``n`` numbers of 16 blocks, weighed by ``w`` (``make_qp_quants``).

    Fills in the levels, 0 to ``nmax`` (a negative number's is what a uint8 leaves of it), and
    the scale of each block.
    """
    top = I32(nmax)
    peak = splat(ZERO, LANES)
    for j in range(n):
        peak = most(peak, load(x, LANES * j, LANES))
    inverse = F32(nmax) / peak
    scale, error = ONE / inverse, splat(ZERO, LANES)
    for j in range(n):
        v = load(x, LANES * j, LANES)
        off = v - scale * wrapped(nearest_int(inverse * v))
        error = error + load(w, LANES * j, LANES) * off * off
    for step in range(-4, 5):
        if step == 0:
            continue
        tried = (TENTH * F32(step) + F32(nmax)) / peak
        scale, this_error = ONE / tried, splat(ZERO, LANES)
        for j in range(n):
            v = load(x, LANES * j, LANES)
            off = v - scale * to_float(least(top, nearest_int(tried * v)))
            this_error = this_error + load(w, LANES * j, LANES) * off * off
        better = this_error < error
        error, inverse = where(better, this_error, error), where(better, tried, inverse)
    sum_lx, sum_l2 = splat(ZERO, LANES), splat(ZERO, LANES)
    for j in range(n):
        v, weight = load(x, LANES * j, LANES), load(w, LANES * j, LANES)
        found = least(top, nearest_int(inverse * v))
        rung = to_float(found)
        store(levels, LANES * j, wrapped(found))
        sum_lx = sum_lx + weight * v * rung
        sum_l2 = sum_l2 + weight * rung * rung
    for _ in range(PASSES):
        changed = False
        for j in range(n):
            v, weight = load(x, LANES * j, LANES), load(w, LANES * j, LANES)
            old = load(levels, LANES * j, LANES)
            less_lx = sum_lx - weight * v * old
            less_l2 = sum_l2 - weight * old * old
            found = least(top, nearest_int(v * less_l2 / less_lx))
            new = to_float(found)
            move = (less_lx > ZERO) & (less_l2 > ZERO) & (new != old)
            new_lx, new_l2 = less_lx + weight * v * new, less_l2 + weight * new * new
            move = move & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            if any_true(move):
                changed = True
                store(levels, LANES * j, where(move, wrapped(found), old))
                sum_lx, sum_l2 = where(move, new_lx, sum_lx), where(move, new_l2, sum_l2)
        if not changed:
            break
    zero = peak < EPSILON
    store(scales, 0, where(zero, ZERO, where(sum_l2 > ZERO, sum_lx / sum_l2, ZERO)))
    for j in range(n):
        store(levels, LANES * j, where(zero, ZERO, load(levels, LANES * j, LANES)))
