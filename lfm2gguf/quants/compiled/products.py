"""Products of matrices in bfloat16 with float32 sums, by AVX-512's instruction for them.

``vdpbf16ps`` multiplies two pairs of bfloat16 for each of sixteen float32 sums: twice the work of
a float32 instruction. It takes numbers below 2**-126 as zero, in and out. Inputs are float32,
rounded to the nearest bfloat16, ties to even, as they are packed.

A packed matrix is uint32 (groups, pairs, WIDTH): of WIDTH rows side by side, pair by pair, what
is multiplied together; the first of a pair lies in the low half. What is missing is zero. All
arrays are flat.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.core.typing import signature
from numba.np import arrayobj

from lfm2gguf.quants.compiled.lanes import bits, intrinsic, load, store, transpose, types, where
from lfm2gguf.quants.compiled.numbers import EXPONENT, F32, I32, driver, inlined

AVAILABLE = "+avx512bf16" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")

LANES = 16
HIGH, WIDTH = 8, 48  # of a tile: 24 vectors of sums, and what they are made of, fill the registers
DEPTH = 1024  # pairs that are summed in registers: so much of WIDTH rows stays in the L2 cache
NEAR = 96  # rows whose tiles are made one after the other for WIDTH columns: they stay there, too
COLUMNS = 512  # that are rounded together, row by row
TOKENS = 8  # pairs of rows that are packed together
PACKED = 192  # rows of the second matrix that are packed and multiplied together


def groups(rows: int) -> int:
    """Return how many groups so many rows are packed in."""
    return -(-rows // WIDTH)


def pairs_of(columns: int) -> int:
    """Return the pairs in which :func:`pack_rows` packs so many columns: of whole vectors."""
    return -(-columns // (2 * LANES)) * LANES


# ---- packing ----------------------------------------------------------------------------------


@inlined
def rounded(x: Any) -> Any:
    """Return integers whose upper halves are the nearest bfloat16, ties to even."""
    stored = bits(x)
    up = stored + I32(0x7FFF) + ((stored >> I32(16)) & I32(1))
    quiet = stored | I32(0x400000)  # a NaN stays one
    return where((stored & I32(0x7FFFFFFF)) > EXPONENT, quiet, up)


@inlined
def filled(source: Any, at: int, count: int, edge: Any) -> None:
    """Put some numbers into ``edge``, and zeros behind them."""
    for i in range(edge.size):
        edge[i] = source[at + i] if i < count else F32(0)


@driver
def pack_rows(source: Any, rows: int, columns: int, first: int, out: Any) -> None:
    """Pack rows from ``first`` on, as many as there is room for; pairs are columns."""
    pairs = -(-columns // (2 * LANES)) * LANES
    halves = np.zeros(LANES * COLUMNS, np.uint16)
    words, packed = halves.view(np.float32), out.view(np.float32)
    edge = np.zeros(2 * LANES, np.float32)
    for group in range(out.size // (pairs * WIDTH)):
        for part in range(0, WIDTH, LANES):
            row = first + group * WIDTH + part
            for start in range(0, 2 * pairs, COLUMNS):
                width = min(COLUMNS, 2 * pairs - start)
                for i in range(LANES):
                    for c in range(0, width, 2 * LANES):
                        at, left = (row + i) * columns + start + c, columns - start - c
                        if row + i < rows and left >= 2 * LANES:
                            x = load(source, at, 32)
                        else:
                            filled(source, at, left if row + i < rows else 0, edge)
                            x = load(edge, 0, 32)
                        store(halves, i * COLUMNS + c, rounded(x) >> I32(16))
                for p in range(0, width // 2, LANES):
                    to = (group * pairs + start // 2 + p) * WIDTH + part
                    transpose(words, p, COLUMNS // 2, packed, to, WIDTH)


@driver
def pack_columns(source: Any, rows: int, columns: int, first: int, out: Any) -> None:
    """Pack columns in place of rows: groups from ``first`` on; pairs are rows."""
    pairs = -(-rows // 2)
    edge = np.zeros(LANES, np.float32)
    for start in range(0, pairs, TOKENS):
        for group in range(out.size // (pairs * WIDTH)):
            for p in range(start, min(start + TOKENS, pairs)):
                for part in range(0, WIDTH, LANES):
                    column = (first + group) * WIDTH + part
                    at, left = 2 * p * columns + column, columns - column
                    if left >= LANES and 2 * p + 1 < rows:
                        low, high = load(source, at, 16), load(source, at + columns, 16)
                    else:
                        filled(source, at, left, edge)
                        low = load(edge, 0, 16)
                        filled(source, at + columns, left if 2 * p + 1 < rows else 0, edge)
                        high = load(edge, 0, 16)
                    both = (rounded(low) >> I32(16)) | (rounded(high) & I32(-0x10000))
                    store(out, (group * pairs + p) * WIDTH + part, both)


# ---- multiplying ------------------------------------------------------------------------------


@intrinsic
def tile(
    _: Any, a: Any, at: Any, b: Any, bt: Any, pairs: Any, out: Any, to: Any, step: Any, fresh: Any
) -> Any:
    """Multiply HIGH rows with WIDTH: ``out[to + step * i + j] = sum(a[at + i] * b[bt + j])``.

    Both packed, over so many pairs. It is added where it is not ``fresh``. The sums are float32;
    ``out`` may be float64.
    """
    sums, words, long = ir.VectorType(ir.FloatType(), 16), ir.VectorType(ir.IntType(32), 16), 64
    wide = ir.VectorType(ir.DoubleType(), 16)
    stored, step_bytes = (sums, 4) if out.dtype == types.float32 else (wide, 8)
    parts = WIDTH // LANES

    def number(n: int) -> Any:
        return ir.Constant(ir.IntType(long), n)

    def make(ctx: Any, b: Any, sig: Any, args: Any) -> Any:
        def pointer(which: int) -> Any:
            data = arrayobj.make_array(sig.args[which])(ctx, b, args[which]).data
            return b.gep(data, [args[which + 1]])

        left, right, target = pointer(0), pointer(2), pointer(5)
        multiply = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(sums, [sums, words, words]),
            "llvm.x86.avx512bf16.dpbf16ps.512",
        )  # fmt: skip
        before, loop = b.block, b.append_basic_block("pairs")
        behind = b.append_basic_block("sums")
        b.branch(loop)
        b.position_at_end(loop)
        pair = b.phi(ir.IntType(long))
        totals = [[b.phi(sums) for _ in range(parts)] for _ in range(HIGH)]
        here = b.mul(pair, number(WIDTH))
        columns = [
            b.load(b.bitcast(b.gep(right, [b.add(here, number(LANES * j))]), words.as_pointer()),
                   align=4)
            for j in range(parts)
        ]  # fmt: skip
        undefined = ir.Constant(words, ir.Undefined)
        made = []
        for i in range(HIGH):
            word = b.load(b.gep(left, [b.add(here, number(i))]))
            first = b.insert_element(undefined, word, ir.Constant(ir.IntType(32), 0))
            row = b.shuffle_vector(first, undefined, ir.Constant(words, [0] * LANES))
            made.append([b.call(multiply, [totals[i][j], row, columns[j]]) for j in range(parts)])
        following = b.add(pair, number(1))
        b.cbranch(b.icmp_signed("<", following, args[4]), loop, behind)
        pair.add_incoming(number(0), before)
        pair.add_incoming(following, loop)
        zero = ir.Constant(sums, [0.0] * LANES)
        for total, one in zip(chain(*totals), chain(*made), strict=True):
            total.add_incoming(zero, before)
            total.add_incoming(one, loop)
        b.position_at_end(behind)
        nothing = ir.Constant(stored, [0.0] * LANES)
        for i in range(HIGH):
            for j in range(parts):
                place = b.gep(target, [number(LANES * j)])
                place = b.bitcast(place, stored.as_pointer())
                old = b.select(args[8], nothing, b.load(place, align=step_bytes))
                new = made[i][j] if stored is sums else b.fpext(made[i][j], wide)
                b.store(b.fadd(old, new), place, align=step_bytes)
            target = b.gep(target, [args[7]])
        return ctx.get_dummy_value()

    n = types.intp
    return signature(types.none, a, n, b, n, n, out, n, n, types.boolean), make


@driver
def multiply(
    a: Any, rows: tuple[int, int], b: Any, columns: tuple[int, int], pairs: int,
    out: Any, start: int, step: int, fresh: bool,
) -> None:  # fmt: skip
    """Fill, or add to, ``out[start + step * i + j]`` with the product of some rows of both.

    Of ``a`` those from ``rows[0]``, a multiple of HIGH, to before ``rows[1]``; of ``b`` as
    ``columns`` say. Each has so many ``pairs``.
    """
    edge = np.empty(HIGH * WIDTH, np.float32)
    for p in range(0, pairs, DEPTH):
        deep, new = min(DEPTH, pairs - p), fresh and not p
        for near in range(rows[0], rows[1], NEAR):
            for group in range(columns[0] // WIDTH, -(-columns[1] // WIDTH)):
                low, high = max(group * WIDTH, columns[0]), min(group * WIDTH + WIDTH, columns[1])
                of_b = (group * pairs + p) * WIDTH
                for row in range(near, min(near + NEAR, rows[1]), HIGH):
                    of_a = (row // WIDTH * pairs + p) * WIDTH + row % WIDTH
                    to = start + (row - rows[0]) * step + low - columns[0]
                    if row + HIGH <= rows[1] and high - low == WIDTH:
                        tile(a, of_a, b, of_b, deep, out, to, step, new)
                        continue
                    tile(a, of_a, b, of_b, deep, edge, 0, WIDTH, True)
                    for i in range(min(HIGH, rows[1] - row)):
                        for j in range(high - low):
                            old = F32(0) if new else out[to + step * i + j]
                            out[to + step * i + j] = old + edge[WIDTH * i + j + low - group * WIDTH]


@driver
def product(
    packed: Any, tokens: int, weight: Any, rows: int, columns: int, out: Any, step: int
) -> None:
    """Set ``out[step * i + j]`` to row i of x by row j of ``weight`` (rows, columns).

    ``packed`` is x (tokens, columns) as :func:`pack_rows` leaves it.
    """
    pairs = -(-columns // (2 * LANES)) * LANES
    b = np.empty(-(-min(rows, PACKED) // WIDTH) * pairs * WIDTH, np.uint32)
    for first in range(0, rows, PACKED):
        count = min(PACKED, rows - first)
        pack_rows(weight, rows, columns, first, b)
        multiply(packed, (0, tokens), b, (0, count), pairs, out, first, step, True)
