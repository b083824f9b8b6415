"""Searches that move one level at a time: ``make_q3_quants`` and ``make_qp_quants``, compiled.

From ggml/src/ggml-quants.c, llama.cpp commit 0c1e57098. A sub-block of which no level has moved
in a pass would not move in another, so that all lanes may go on while one of them does.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants.compiled.across import any_true, joined, lane, next_true
from lfm2gguf.quants.compiled.groups import LANES
from lfm2gguf.quants.compiled.lanes import (
    absolute,
    least,
    load,
    most,
    splat,
    store,
    to_float,
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
SUB_BLOCKS = SIZE * LANES  # of sixteen super-blocks
PAIR = 2 * LANES
# Half a step less half a weight's share is how near a level has to be; a thousandth of a step
# is left for what rounding does, which weighs more the less the others have.
HALF, CLOSE = F32(0.5), F32(0.499)


@inlined
def load_pair(planes: Any, at: int) -> Any:
    """Return a number of two sub-blocks of 16 weights that follow each other."""
    return joined(load(planes, at, LANES), load(planes, at + SIZE * LANES, LANES))


@kernel
def sum_up(x: Any, at: int, room: Any, nmax: Any, sums: Any, found: Any, to: int) -> None:
    """Sum up two sub-blocks of 16 blocks as C does before it moves levels.

    ``sums`` gets both sums, which are 0 of an empty sub-block; ``found`` from plane 1 on the
    factors that make the levels, 1 where it is empty, and 1 where it is restless: where a level
    might move. Four sub-blocks in five are at rest. Half of all have a positive weight furthest
    from zero: then ``sum_lx`` is not positive, nor is what a weight leaves of it, as all parts
    have one sign. Elsewhere a level stays if it is the nearest to ``v * less_l2 / less_lx`` (see
    :func:`signed_step`). With a weight's share of ``sum_lx`` the distance of the two is
    ``(v * sum_l2 / sum_lx - level) / (1 - share)``. Under sums so small or large that these are
    no numbers nothing moves: their squares, which are compared, are 0 or infinite.
    """
    peak, far = splat(ZERO, PAIR), splat(ZERO, PAIR)
    for i in range(SIZE):
        v = load_pair(x, at + LANES * i)
        distance = absolute(v)
        further = distance > far
        far, peak = where(further, distance, far), where(further, v, peak)
    low, high = ZERO - nmax, nmax - ONE
    factor = low / peak
    sum_lx, sum_l2 = splat(ZERO, PAIR), splat(ZERO, PAIR)
    for i in range(SIZE):
        v = load_pair(x, at + LANES * i)
        rung = quick_level(factor * v, low, high)  # at most nmax before rounding
        part = v * v * v * rung
        store(room, PAIR * i, rung)
        store(room, PAIR * (SIZE + i), part)
        sum_lx = sum_lx + part
        sum_l2 = sum_l2 + v * v * rung * rung
    best, half = sum_l2 / sum_lx, HALF / sum_lx
    furthest = splat(ZERO, PAIR)
    for i in range(SIZE):
        v, rung = load_pair(x, at + LANES * i), load(room, PAIR * i, PAIR)
        off = absolute(most(least(v * best, high), low) - rung)
        furthest = most(furthest, off + half * load(room, PAIR * (SIZE + i), PAIR))
    restless = (sum_lx > ZERO) & (furthest > CLOSE)
    empty, one = far < EPSILON, splat(ONE, PAIR)
    store(sums[0], to, where(empty, ZERO, sum_lx))
    store(sums[1], to, where(empty, ZERO, sum_l2))
    store(found[1], to, factor)
    store(found[2], to, where(empty, one, ZERO))
    store(found[3], to, where(empty, ZERO, where(restless, one, ZERO)))


@inlined
def row_of(s: int) -> Any:
    """Return where sub-block ``s`` of planes stands in the blocks themselves."""
    return SIZE * (s % LANES * SIZE + s // LANES)


@inlined
def signed_step(v: Any, rung: Any, sum_lx: Any, sum_l2: Any, low: Any, high: Any) -> Any:
    """Return which levels of a sub-block would move next; all levels, and both sums for each.

    Levels and sums are what they become by that move alone, or stay without one.
    """
    weight = v * v
    less_lx = sum_lx - weight * v * rung
    less_l2 = sum_l2 - weight * rung * rung
    new = to_float(level(v * less_l2 / less_lx, low, high))
    new_lx, new_l2 = less_lx + weight * v * new, less_l2 + weight * new * new
    move = (less_lx > ZERO) & (new != rung) & (new_l2 > ZERO)
    move = move & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
    new_lx = where(move, new_lx, splat(sum_lx, SIZE))
    return move, where(move, new, rung), new_lx, where(move, new_l2, splat(sum_l2, SIZE))


@kernel
def move_levels(x: Any, levels: Any, nmax: Any, sums: Any, chosen: Any, n: int) -> None:
    """Move the levels of the ``n`` sub-blocks ``chosen`` until none moves any more.

    In a round each makes its next move, found among all of its levels at once: the processor
    works on several, as none waits for another. Those that moved are chosen again, with the step
    behind it, of C's sixteen in a pass, above their number.
    """
    low, high = I32(ZERO - nmax), I32(nmax - ONE)
    while n:
        left = 0
        for k in range(n):
            s, step = chosen[k] % SUB_BLOCKS, chosen[k] // SUB_BLOCKS
            at = row_of(s)
            moves, rung, sum_lx, sum_l2 = signed_step(
                load(x, at, SIZE), load(levels, at, SIZE), sums[0, s], sums[1, s], low, high
            )
            ahead = next_true(moves, step % SIZE)
            step += ahead
            if step < PASSES * SIZE:
                i = step % SIZE  # of no move, too: a branch would be foretold badly
                levels[at + i] = lane(rung, i)
                sums[0, s], sums[1, s] = lane(sum_lx, i), lane(sum_l2, i)
            chosen[left] = s + SUB_BLOCKS * (step + 1)
            left += (ahead < SIZE) & (step < PASSES * SIZE)
        n = left


@kernel
def descend(
    x: Any, planes: Any, levels: Any, nmax: Any, room: Any, chosen: Any, found: Any
) -> None:
    """Fit x = scale * level, weighed by x², one level after another (``make_q3_quants``).

    For the sub-blocks of 16 super-blocks, of which those that are not at rest are ``chosen``:
    ``levels``, which lie like ``x``, get theirs, from ``-nmax`` on. The planes ``found`` are the
    scales and what :func:`sum_up` has.
    """
    sums, own = room[: 2 * SUB_BLOCKS].reshape(2, SUB_BLOCKS), room[2 * SUB_BLOCKS :]
    for j in range(0, SIZE, 2):
        sum_up(planes, SIZE * LANES * j, own, nmax, sums, found, LANES * j)
    n = 0
    for s in range(SUB_BLOCKS):
        chosen[n] = s
        n += found[3, s] == ONE
    for k in range(n):
        at = row_of(chosen[k])
        rung = quick_level(found[1, chosen[k]] * load(x, at, SIZE), ZERO - nmax, nmax - ONE)
        store(levels, at, rung)
    move_levels(x, levels, nmax, sums, chosen, n)
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
