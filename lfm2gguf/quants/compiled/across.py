"""Of numbers side by side (:mod:`lanes`): folds of them, masks as bits, and parts of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core.typing import signature

from lfm2gguf.quants.compiled.lanes import (
    I1,
    I32,
    SCALARS,
    Vector,
    compare,
    exchanged,
    intrinsic,
    pick,
    shuffle,
    types,
)


def _fold(sign: str, doc: str) -> Any:
    def function(_: Any, x: Any, y: Any, half: Any) -> Any:
        def make(_: Any, b: Any, _sig: Any, args: Any) -> Any:
            left, right = exchanged(b, args[0], args[1], half.literal_value)
            return b.select(compare(b, sign, x, left, right), left, right)

        return signature(x, x, y, half), make

    function.__doc__ = doc
    return intrinsic(prefer_literal=True)(function)


fold_largest = _fold(">", "The larger of the two blocks of ``half`` (a literal) in 2 half of x, y.")
fold_smallest = _fold("<", "The smaller ones.")


def _reduction(sign: str, doc: str) -> Any:
    def function(_: Any, x: Any) -> Any:
        def make(_: Any, b: Any, _sig: Any, args: Any) -> Any:
            value, half = args[0], x.count // 2
            while half:
                low, high = pick(b, value, range(half)), pick(b, value, range(half, 2 * half))
                value = b.select(compare(b, sign, x, low, high), low, high)
                half //= 2
            return b.extract_element(value, ir.Constant(I32, 0))

        return signature(SCALARS[x.kind], x), make

    function.__doc__ = doc
    return intrinsic(function)


largest = _reduction(">", "The largest lane (which zero of two is open).")
smallest = _reduction("<", "The smallest lane (which zero of two is open).")


def _of_mask(make: Callable[[Any, Any, int], Any], result: Any, doc: str) -> Any:
    def function(_: Any, mask: Any) -> Any:
        def lower(_: Any, b: Any, _sig: Any, args: Any) -> Any:
            return make(b, b.bitcast(args[0], ir.IntType(mask.count)), mask.count)

        return signature(result, mask), lower

    function.__doc__ = doc
    return intrinsic(function)


def _index(b: Any, flags: Any, count: int) -> Any:
    found = b.cttz(flags, ir.Constant(I1, 0))
    return b.zext(found, ir.IntType(64)) if count < 64 else found


any_true = _of_mask(
    lambda b, flags, n: b.icmp_unsigned("!=", flags, ir.Constant(ir.IntType(n), 0)),
    types.boolean,
    "Whether any lane is true.",
)
flags = _of_mask(lambda _b, flags, _n: flags, types.int32, "The mask of 32 lanes as bits.")
first_true = _of_mask(_index, types.intp, "The first lane that is true; their number if none is.")


@intrinsic
def next_true(_: Any, mask: Any, start: Any) -> Any:
    """How far behind lane ``start``, in a circle, the next true one is; twice around if none."""
    kind = ir.IntType(2 * mask.count)

    def make(_: Any, b: Any, _sig: Any, args: Any) -> Any:
        flags = b.zext(b.bitcast(args[0], ir.IntType(mask.count)), kind)
        twice = b.or_(flags, b.shl(flags, ir.Constant(kind, mask.count)))
        found = b.cttz(b.lshr(twice, b.trunc(args[1], kind)), ir.Constant(I1, 0))
        return b.zext(found, ir.IntType(64))

    return signature(types.intp, mask, types.intp), make


@intrinsic
def lane(_: Any, x: Any, i: Any) -> Any:
    """Lane ``i``."""

    def make(_: Any, b: Any, _sig: Any, args: Any) -> Any:
        return b.extract_element(args[0], b.trunc(args[1], I32))

    return signature(SCALARS[x.kind], x, types.intp), make


@intrinsic(prefer_literal=True)
def part(_: Any, x: Any, start: Any, count: Any) -> Any:
    """``count`` lanes from ``start`` on (both literals)."""
    lanes = range(start.literal_value, start.literal_value + count.literal_value)
    vector = Vector(x.kind, len(lanes))
    return (
        signature(vector, x, start, count),
        lambda _ctx, b, _sig, args: pick(b, args[0], lanes),
    )


@intrinsic
def joined(_: Any, x: Any, y: Any) -> Any:
    """The lanes of ``x``, then those of ``y``."""
    vector = Vector(x.kind, 2 * x.count)
    return (
        signature(vector, x, y),
        lambda _ctx, b, _sig, args: shuffle(b, args[0], args[1], range(2 * x.count)),
    )
