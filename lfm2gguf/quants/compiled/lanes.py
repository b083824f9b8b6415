"""Numbers side by side, as a type of numba's: LLVM's vectors, lowered to whatever SIMD there is.

``load(array, at, 16)`` gives sixteen numbers; operators and the functions below work on all of
them. LLVM makes AVX-512, AVX2, SSE or NEON of that. No fast-math flag is set anywhere: nothing
is fused, nothing reordered, so that every lane has the bits that C's scalar code would have.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, extending
from numba.core import types as numba_types
from numba.core.datamodel import models
from numba.core.extending import lower_builtin, register_model
from numba.core.registry import cpu_target
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.np import arrayobj

types: Any = numba_types
intrinsic: Any = extending.intrinsic  # numba's own annotations are those of the maker's arguments
F32, I32, I16, I8, I1 = ir.FloatType(), *(ir.IntType(bits) for bits in (32, 16, 8, 1))
ELEMENTS = {"float": F32, "int": I32, "byte": I8, "bool": I1}
SCALARS = {
    "float": types.float32,
    "int": types.int32,
    "byte": types.uint8,
    "bool": types.boolean,
}


class Vector(types.Type):
    """``count`` numbers of a kind: "float" (float32), "int" (int32), "byte" (uint8) or "bool"."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.count = kind, count
        super().__init__(name=f"Vector({kind}, {count})")

    @property
    def llvm(self) -> ir.VectorType:
        """LLVM's type for it."""
        return ir.VectorType(ELEMENTS[self.kind], self.count)


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


def _constant(count: int, value: int | Sequence[int], element: Any = I32) -> ir.Constant:
    values = [value] * count if isinstance(value, int) else list(value)
    return ir.Constant(ir.VectorType(element, count), values)


def shuffle(b: Any, x: Any, y: Any, lanes: Sequence[int]) -> Any:
    """Return these lanes of ``x``, then ``y``."""
    return b.shuffle_vector(x, y, _constant(len(lanes), lanes))


def pick(b: Any, x: Any, lanes: Sequence[int]) -> Any:
    """Return these lanes of ``x``."""
    return shuffle(b, x, ir.Constant(x.type, ir.Undefined), lanes)


def _as(b: Any, value: Any, vector: Vector) -> Any:
    """A value as lanes: a scalar fills them all."""
    if isinstance(value.type, ir.VectorType):
        return value
    undefined = ir.Constant(vector.llvm, ir.Undefined)
    first = b.insert_element(undefined, value, ir.Constant(I32, 0))
    return pick(b, first, [0] * vector.count)


def _common(*args: Any) -> Vector | None:
    """What the operands of an operation are, where one of them is lanes and the others fit."""
    vector = next((a for a in args if isinstance(a, Vector)), None)
    if vector is None:
        return None
    scalar = SCALARS[vector.kind]
    fit = all(a == vector or types.unliteral(a) == scalar for a in args)
    return vector if fit else None


# ---- operators --------------------------------------------------------------------------------


def _operator(op: Any, floats: str | None, ints: str | None) -> None:
    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, _: Any) -> Any:
            vector = _common(*args)
            known = vector and (floats if vector.kind == "float" else ints)
            return signature(vector, *args) if known else None

    def lower(_: Any, b: Any, sig: Any, args: Any) -> Any:
        vector = sig.return_type
        name = floats if vector.kind == "float" else ints
        return getattr(b, name or "")(*(_as(b, a, vector) for a in args))

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *pair)(lower)


def _comparison(op: Any, sign: str) -> None:
    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, _: Any) -> Any:
            vector = _common(*args)
            return vector and signature(Vector("bool", vector.count), *args)

    def lower(_: Any, b: Any, sig: Any, args: Any) -> Any:
        vector = _common(*sig.args)
        assert vector
        return compare(b, sign, vector, *(_as(b, a, vector) for a in args))

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *pair)(lower)


def compare(b: Any, sign: str, vector: Vector, x: Any, y: Any) -> Any:
    """Comparisons with NaN are false, as in C, but for ``!=``."""
    if vector.kind == "int":
        return b.icmp_signed(sign, x, y)
    if vector.kind == "byte":
        return b.icmp_unsigned(sign, x, y)
    return b.fcmp_unordered(sign, x, y) if sign == "!=" else b.fcmp_ordered(sign, x, y)


for _op, _floats, _ints in (
    (operator.add, "fadd", "add"),
    (operator.sub, "fsub", "sub"),
    (operator.mul, "fmul", "mul"),
    (operator.truediv, "fdiv", None),
    (operator.and_, None, "and_"),
    (operator.or_, None, "or_"),
    (operator.xor, None, "xor"),
    (operator.lshift, None, "shl"),
    (operator.rshift, None, "lshr"),
):
    _operator(_op, _floats, _ints)
for _op, _sign in (
    (operator.lt, "<"),
    (operator.gt, ">"),
    (operator.le, "<="),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _comparison(_op, _sign)


@intrinsic
def unknown(_: Any, n: Any) -> Any:
    """``n``, of which LLVM then knows nothing.

    Loops of so many turns stay loops. Unrolled, an inner one would have what it loads kept
    outside of the outer one: on the stack, there being more than registers.
    """

    def make(_: Any, b: Any, _sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(args[0].type, [args[0].type])
        return b.call(ir.InlineAsm(kind, "", "=r,0"), args)

    return signature(types.intp, types.intp), make


# ---- memory -----------------------------------------------------------------------------------


def _place(ctx: Any, b: Any, array_type: Any, array: Any, at: Any, vector: Any) -> Any:
    data = arrayobj.make_array(array_type)(ctx, b, array).data
    return b.bitcast(b.gep(data, [at]), vector.as_pointer())


@intrinsic(prefer_literal=True)
def load(_: Any, array: Any, at: Any, count: Any) -> Any:
    """``count`` (a literal) numbers from ``at`` on; those of 16 bits become int32."""
    dtype = array.dtype
    kind = {types.float32: "float", types.uint8: "byte"}.get(dtype, "int")
    vector = Vector(kind, count.literal_value)
    element = F32 if dtype == types.float32 else ir.IntType(dtype.bitwidth)

    def make(ctx: Any, b: Any, _: Any, args: Any) -> Any:
        stored = ir.VectorType(element, vector.count)
        value = b.load(_place(ctx, b, array, args[0], args[1], stored), align=dtype.bitwidth // 8)
        if stored == vector.llvm:
            return value
        return (b.sext if dtype.signed else b.zext)(value, vector.llvm)

    return signature(vector, array, types.intp, count), make


@intrinsic
def store(_: Any, array: Any, at: Any, x: Any) -> Any:
    """Put lanes into an array from ``at`` on; of integers the low bits that fit."""
    element = F32 if array.dtype == types.float32 else ir.IntType(array.dtype.bitwidth)

    def make(ctx: Any, b: Any, _: Any, args: Any) -> Any:
        kind = ir.VectorType(element, x.count)
        value = args[2] if kind == x.llvm else b.trunc(args[2], kind)
        place = _place(ctx, b, array, args[0], args[1], kind)
        b.store(value, place, align=array.dtype.bitwidth // 8)
        return ctx.get_dummy_value()

    return signature(types.none, array, types.intp, x), make


def exchanged(b: Any, x: Any, y: Any, half: int) -> tuple[Any, Any]:
    """Every first block of ``half`` of x, then of y, in turn; and every second one."""
    size = x.type.count
    upper = [j if not j & half else size + j - half for j in range(size)]
    lower = [j + half if not j & half else size + j for j in range(size)]
    return shuffle(b, x, y, upper), shuffle(b, x, y, lower)


@intrinsic
def transpose(_: Any, source: Any, at: Any, stride: Any, target: Any, to: Any, step: Any) -> Any:
    """``target[to + step * i + k] = source[at + stride * k + i]`` for i, k < 16; both float32.

    By exchanging blocks of 8, 4, 2 and 1 between rows, as for any power of two (Eklundh).
    """
    size = 16
    kind = ir.VectorType(F32, size)

    def make(ctx: Any, b: Any, _: Any, args: Any) -> Any:
        source_at, target_at = args[1], args[4]
        rows = []
        for _ in range(size):
            rows.append(b.load(_place(ctx, b, source, args[0], source_at, kind), align=4))
            source_at = b.add(source_at, args[2])
        half = size // 2
        while half:
            for k in (k for k in range(size) if not k & half):
                rows[k], rows[k + half] = exchanged(b, rows[k], rows[k + half], half)
            half //= 2
        for row in rows:
            b.store(row, _place(ctx, b, target, args[3], target_at, kind), align=4)
            target_at = b.add(target_at, args[5])
        return ctx.get_dummy_value()

    numbers = (source, types.intp, types.intp, target, types.intp, types.intp)
    return signature(types.none, *numbers), make


# ---- lane by lane -----------------------------------------------------------------------------


def _unary(kind: str, make: Callable[[Any, Any, Vector], Any], doc: str) -> Any:
    """A function of lanes to lanes of ``kind``."""

    def function(_: Any, x: Any) -> Any:
        result = Vector(kind, x.count)
        return signature(result, x), lambda _ctx, b, _sig, args: make(b, args[0], result)

    function.__doc__ = doc
    return intrinsic(function)


def _llvm(name: str) -> Callable[[Any, Any, Vector], Any]:
    def make(b: Any, x: Any, vector: Vector) -> Any:
        kind = ir.FunctionType(vector.llvm, [vector.llvm])
        full = f"llvm.{name}.v{vector.count}f32"
        return b.call(cgutils.get_or_insert_function(b.module, kind, full), [x])

    return make


absolute = _unary("float", _llvm("fabs"), "abs(x).")
sqrt = _unary("float", _llvm("sqrt"), "The square root.")
bits = _unary("int", lambda b, x, v: b.bitcast(x, v.llvm), "The bits of float32.")
from_bits = _unary("float", lambda b, x, v: b.bitcast(x, v.llvm), "float32 of these bits.")
to_float = _unary("float", lambda b, x, v: b.sitofp(x, v.llvm), "Integers as float32.")
to_bytes = _unary("byte", lambda b, x, v: b.trunc(x, v.llvm), "The low bytes of integers.")
to_ints = _unary("int", lambda b, x, v: b.zext(x, v.llvm), "Bytes as integers.")
truncated = _unary("int", lambda b, x, v: b.fptosi(x, v.llvm), "C's cast; all in range.")


@intrinsic(prefer_literal=True)
def splat(_: Any, x: Any, count: Any) -> Any:
    """``count`` (a literal) times a float32, int32 or uint8."""
    kind = {types.float32: "float", types.uint8: "byte"}.get(types.unliteral(x), "int")
    vector = Vector(kind, count.literal_value)
    return signature(vector, x, count), lambda _ctx, b, _sig, args: _as(b, args[0], vector)


@intrinsic
def where(_: Any, mask: Any, x: Any, y: Any) -> Any:
    """``x`` where the mask is true, ``y`` elsewhere."""
    vector = _common(x, y)
    assert vector

    def make(_: Any, b: Any, _sig: Any, args: Any) -> Any:
        return b.select(args[0], _as(b, args[1], vector), _as(b, args[2], vector))

    return signature(vector, mask, x, y), make


def _extremum(sign: str, doc: str) -> Any:
    def function(_: Any, x: Any, y: Any) -> Any:
        vector = _common(x, y)
        assert vector

        def make(_: Any, b: Any, _sig: Any, args: Any) -> Any:
            left, right = (_as(b, a, vector) for a in args)
            return b.select(compare(b, sign, vector, left, right), left, right)

        return signature(vector, x, y), make

    function.__doc__ = doc
    return intrinsic(function)


least = _extremum("<", "``x < y ? x : y``, as C's macro MIN.")
most = _extremum(">", "``x > y ? x : y``, as C's macro MAX.")


# Whether one instruction rounds floats to integers: without, LLVM calls a function for each.
FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
HAS_ROUNDING = "+sse4.1" in FEATURES
to_even = _unary("float", _llvm("roundeven"), "The nearest integers, of two the even one.")


# ---- tables -----------------------------------------------------------------------------------


# Whether one instruction looks sixteen numbers up in a table: without, there are no tables.
HAS_TABLES = "+avx512f" in FEATURES


def table(numbers: Sequence[float]) -> Any:
    """A function of integers, 16 lanes or 32: which of 32 float32 their low five bits name."""
    kind, index = ir.VectorType(F32, 16), ir.VectorType(I32, 16)
    halves = [ir.Constant(kind, list(half)) for half in (numbers[:16], numbers[16:])]

    def look_up(_: Any, x: Any) -> Any:
        def make(_: Any, b: Any, _sig: Any, args: Any) -> Any:
            of = ir.FunctionType(kind, [kind, index, kind])
            name = "llvm.x86.avx512.vpermi2var.ps.512"
            function = cgutils.get_or_insert_function(b.module, of, name)
            found = [
                b.call(function, [halves[0], pick(b, args[0], range(at, at + 16)), halves[1]])
                for at in range(0, x.count, 16)
            ]
            return found[0] if x.count == 16 else shuffle(b, found[0], found[1], range(32))

        return signature(Vector("float", x.count), x), make

    return intrinsic(look_up)
