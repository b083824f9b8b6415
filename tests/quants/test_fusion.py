"""What LLVM makes of the kernels for Arm: multiply and add stay two operations, as in ggml's C."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lfm2gguf.quants import kernels

pytestmark = [
    pytest.mark.slow,  # numba compiles
    pytest.mark.skipif(bool(kernels.why_not_compiled()), reason=str(kernels.why_not_compiled())),
]

TRIPLES = [("aarch64-unknown-linux-gnu", "neoverse-v2"), ("arm64-apple-macosx14", "apple-m1")]
FUSED = re.compile(r"\b(?:fmla|fmls|fmadd|fmsub|fnmadd|fnmsub)\b")


def assembly(ir: str, triple: str, cpu: str) -> str:
    """Compile numba's code for another processor."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    ir = re.sub(r'target triple = ".*"', f'target triple = "{triple}"', ir)
    ir = re.sub(r"target datalayout = .*\n", "", ir)
    ir = re.sub(r'"target-(cpu|features)"="[^"]*"', "", ir)
    module = llvm.parse_assembly(ir)
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    module.data_layout, module.triple = str(machine.target_data), triple
    return machine.emit_assembly(module)


@pytest.fixture(scope="module")
def code() -> dict[str, str]:
    """LLVM's code of the searches, where all sums are."""
    import numba

    from lfm2gguf.quants.compiled import descent, search
    from lfm2gguf.quants.compiled.numbers import F32

    x = np.zeros(1024, np.float32)
    calls = {
        search.search_with_min: (x, 0, x, x, 32, F32(15), F32(-1), F32(0.1), 20, *4 * (x,), 0),
        search.symmetric_search: (x, 0, x, x, 16, F32(32), x, x, x, 0),
        descent.descend: (x, x, F32(4), x, x.view(np.int32), x),
        descent.positive_scale: (x, x, 8, 63, x, x),
    }
    found = {}
    for dispatcher, arguments in calls.items():
        options = {
            k: v for k, v in dispatcher.targetoptions.items() if k not in ("cache", "nopython")
        }
        fresh = numba.njit(**options)(dispatcher.py_func)  # one from the cache has no code to show
        fresh.compile(tuple(numba.typeof(a) for a in arguments))
        found[dispatcher.__name__] = fresh.inspect_llvm(fresh.signatures[0])
    return found


@pytest.mark.parametrize(("triple", "cpu"), TRIPLES)
def test_nothing_is_fused(code: dict[str, str], triple: str, cpu: str) -> None:
    for name, ir in code.items():
        made = assembly(ir, triple, cpu)
        assert re.search(r"\bfmul\b", made), name
        assert re.search(r"\bfadd\b", made), name
        assert not FUSED.search(made), name


def test_a_fused_operation_would_be_seen() -> None:
    kind = "<4 x float>"
    ir = f"""
target triple = "x"
define {kind} @f({kind} %a, {kind} %b, {kind} %c) {{
  %p = fmul contract {kind} %a, %b
  %s = fadd contract {kind} %p, %c
  ret {kind} %s
}}
"""
    assert FUSED.search(assembly(ir, *TRIPLES[0]))
