"""The innermost loops of calibration, compiled, as in ``calibration/loops.py``.

Sixteen rows side by side, so their number is a multiple of that. ``codes`` are a type's, and
``middles`` lie between them: none where the codes are consecutive integers. Matrices are
(columns, rows), flat.
"""

from __future__ import annotations

from typing import Any

from lfm2gguf.quants.compiled.lanes import (
    least,
    load,
    most,
    splat,
    store,
    to_bytes,
    to_float,
    to_ints,
    truncated,
    where,
)
from lfm2gguf.quants.compiled.numbers import F32, MAGIC, ONE, ZERO, inlined, kernel

LANES = 16
SINGULAR = F32(1e-7)  # as there


@inlined
def code_of(level: Any, codes: Any, middles: Any) -> Any:
    """Return the codes of levels, which are whole numbers as float32."""
    if middles.size == 0:
        return level + codes[0]
    found = splat(codes[0], LANES)
    for i in range(middles.size):
        found = where(level > F32(i), splat(codes[i + 1], LANES), found)
    return found


@inlined
def nearest_level(x: Any, codes: Any, middles: Any) -> Any:
    """Return the levels whose codes are nearest; of consecutive ones the even one of two."""
    if middles.size == 0:
        inside = most(least(x - codes[0], F32(codes.size - 1)), ZERO)
        return (inside + MAGIC) - MAGIC
    found = splat(ZERO, LANES)
    for i in range(middles.size):
        found = found + where(x > middles[i], splat(ONE, LANES), ZERO)
    return found


@kernel
def move_levels(
    codes: Any, middles: Any, sub_block: int, q: Any, scale: Any, inverse: Any, local: Any,
    gradient: Any, change: Any,
) -> None:  # fmt: skip
    """Move ``q``, one column after the other, and fill ``change``; ``gradient`` is used up."""
    columns = int(local.size**0.5 + 0.5)
    rows = q.size // columns
    for row in range(0, rows, LANES):
        for j in range(columns):
            at, of = j * rows + row, j // sub_block * rows + row
            step = load(scale, of, LANES)
            level = to_float(to_ints(load(q, at, LANES)))
            here = code_of(level, codes, middles)
            by = load(inverse, of, LANES) / local[j * columns + j]
            moved = nearest_level(here - load(gradient, at, LANES) * by, codes, middles)
            moved = where(step == ZERO, level, moved)
            moves = step * (code_of(moved, codes, middles) - here)
            store(change, at, moves)
            store(q, at, to_bytes(truncated(moved)))
            for k in range(j + 1, columns):
                to = k * rows + row
                store(gradient, to, load(gradient, to, LANES) + local[k * columns + j] * moves)


@kernel
def round_columns(
    codes: Any, middles: Any, sub_block: int, w: Any, scale: Any, inverse: Any, offset: Any,
    triangle: Any, q: Any, errors: Any,
) -> None:  # fmt: skip
    """Round ``w``, one column after the other, into ``q``, and fill ``errors``."""
    columns = int(triangle.size**0.5 + 0.5)
    rows = q.size // columns
    for row in range(0, rows, LANES):
        for j in range(columns):
            at, of = j * rows + row, j // sub_block * rows + row
            lifted = load(w, at, LANES)
            if offset.size:
                lifted = lifted + load(offset, of, LANES)
            level = nearest_level(lifted * load(inverse, of, LANES), codes, middles)
            error = lifted - load(scale, of, LANES) * code_of(level, codes, middles)
            error = error / triangle[j * columns + j]
            store(errors, at, error)
            store(q, at, to_bytes(truncated(level)))
            for k in range(j + 1, columns):
                to = k * rows + row
                store(w, to, load(w, to, LANES) - triangle[j * columns + k] * error)


@kernel
def dots(a: Any, b: Any, out: Any) -> None:
    """Set ``out`` to the sums of ``a * b`` over the columns, one after the other."""
    rows = out.size
    for row in range(0, rows, LANES):
        total = load(a, row, LANES) * load(b, row, LANES)
        for at in range(rows + row, a.size, rows):
            total = total + load(a, at, LANES) * load(b, at, LANES)
        store(out, row, total)


@kernel
def add_scaled(out: Any, a: Any, x: Any) -> None:
    """Add ``a * x`` to ``out``, a factor for each row."""
    rows = a.size
    for start in range(0, x.size, rows):
        for row in range(0, rows, LANES):
            at = start + row
            store(out, at, load(out, at, LANES) + load(a, row, LANES) * load(x, at, LANES))


@inlined
def ratio(a: Any, b: Any) -> Any:
    """Return a / b, and 0 where b is 0."""
    return where(b == ZERO, splat(ZERO, LANES), a / where(b == ZERO, splat(ONE, LANES), b))


@inlined
def near(x: Any, low: int, high: int) -> Any:
    """Return the nearest integers, kept within two of a range; NaN stays."""
    inside = most(F32(low - 2), least(F32(high + 2), x))
    return (inside + MAGIC) - MAGIC


@inlined
def within(x: Any, low: int, high: int) -> Any:
    """Return what is nearest in a range; NaN stays."""
    return most(F32(low), least(F32(high), x))


@kernel
def best_scale(uu: Any, ur: Any, d: Any, sc: Any, low: int, high: int, out: Any) -> None:
    """Set ``out`` to the best integers beside ``d``, ``sc`` where they gain nothing."""
    for row in range(0, out.size, LANES):
        by, old = load(d, row, LANES), load(sc, row, LANES)
        r, u = load(ur, row, LANES), load(uu, row, LANES)
        found = within(
            near(old + ratio(splat(ZERO, LANES) - ratio(r, u), by), low, high), low, high
        )
        a = by * (found - old)
        gain = F32(2) * a * r + a * a * u
        store(out, row, where(gain < ZERO, found, old))


@kernel
def best_scales(
    uu: Any, ur: Any, vv: Any, uv: Any, vr: Any, d: Any, sc: Any, dmin: Any, m: Any,
    low: int, high: int, out: Any, minima: Any,
) -> None:  # fmt: skip
    """Set ``out`` and ``minima`` to the best integers beside ``d`` and ``dmin``."""
    for row in range(0, out.size, LANES):
        by, off = load(d, row, LANES), load(dmin, row, LANES)
        old, old_m = load(sc, row, LANES), load(m, row, LANES)
        u, r, v = load(uu, row, LANES), load(ur, row, LANES), load(vv, row, LANES)
        both, q = load(uv, row, LANES), load(vr, row, LANES)
        determinant = u * v - both * both
        regular = determinant > SINGULAR * u * v
        alone = (q * both - r * v) / where(regular, determinant, splat(ONE, LANES))
        alone = where(regular, alone, splat(ZERO, LANES))
        start = near(old + ratio(alone, by), low, high)
        best, best_sc, best_m = splat(ZERO, LANES), old, old_m
        for step in range(-1, 2):
            s = within(start + F32(step), low, high)
            a = by * (s - old)
            o = within(near(old_m + ratio(ratio(q + a * both, v), off), low, high), low, high)
            by_m = off * (o - old_m)
            gain = F32(2) * a * r + a * a * u
            gain = gain - F32(2) * by_m * q - F32(2) * a * by_m * both + by_m * by_m * v
            better = gain < best
            best = where(better, gain, best)
            best_sc, best_m = where(better, s, best_sc), where(better, o, best_m)
        store(out, row, best_sc)
        store(minima, row, best_m)
