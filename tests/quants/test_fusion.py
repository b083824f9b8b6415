"""What LLVM makes of the kernels for Arm: multiply and add stay two operations, as in ggml's C."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def searches() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The kernels that all sums are in, and what they are called with."""
    from lfm2gguf.quants import grids
    from lfm2gguf.quants.compiled import descent, iq1, iq2, iq3, nonlinear, rounding, search
    from lfm2gguf.quants.compiled.lattice import tables
    from lfm2gguf.quants.compiled.numbers import F32

    x, ints, out = np.zeros(1024, np.float32), np.zeros(1024, np.int32), np.zeros(64, np.uint8)
    lattices = {
        "IQ2_XXS": (iq2.iq2_xxs_group, grids.IQ2_XXS),
        "IQ2_XS": (iq2.iq2_xs_group, grids.IQ2_XS),
        "IQ2_S": (iq2.iq2_s_group, grids.IQ2_S),
        "IQ3_XXS": (iq3.iq3_xxs_group, grids.IQ3_XXS),
        "IQ3_S": (iq3.iq3_s_group, grids.IQ3_S),
        "IQ1_S": (iq1.iq1_s_group, grids.IQ1),
        "IQ1_M": (iq1.iq1_m_group, grids.IQ1),
    }
    codes, loops = (x, x, 32), (x, x, x, x)
    with_min = x, 0, x, x, 32, 2, False, F32(15), F32(-1), F32(0.1), 20, 4 * (x,), 0
    return {
        "search_with_min": (search.search_with_min, with_min),
        "symmetric_search": (search.symmetric_search, (x, 0, x, x, 16, F32(32), x, x, x, 0, False)),
        "descend": (descent.descend, (x, x, x, F32(4), x, ints, x.reshape(4, 256))),
        "positive_scale": (descent.positive_scale, (x, x, 8, 63, x, x)),
        "move_levels": (rounding.move_levels, (*codes, out, *loops, x)),
        "round_columns": (rounding.round_columns, (*codes, *loops, x, out, x)),
        "best_scales": (rounding.best_scales, (*loops, *loops, x, 0, 63, x, x)),
        "IQ4": (nonlinear.fit, (x, x, 256, x, x, x)),
        **{
            name: (kernel, (tables(grid), x, x, x, ints, 0, 16, out))
            for name, (kernel, grid) in lattices.items()
        },
    }


def code_of(dispatcher: Any, arguments: tuple[Any, ...]) -> str:
    """LLVM's code of a kernel and of all that it calls."""
    import numba

    unwanted = ("cache", "nopython")  # one from the cache has no code to show
    options = {k: v for k, v in dispatcher.targetoptions.items() if k not in unwanted}
    fresh: Any = numba.njit(**options)(dispatcher.py_func)
    fresh.compile(tuple(numba.typeof(a) for a in arguments))
    return str(fresh.inspect_llvm(fresh.signatures[0]))


def code_elsewhere(name: str) -> str:
    """LLVM's code of a kernel where there is no AVX-512: what numba compiles for is fixed early."""
    code = "import sys; from tests.quants.test_fusion import code_of, searches; "
    command = [sys.executable, "-c", code + "print(code_of(*searches()[sys.argv[1]]))", name]
    other = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    root = Path(__file__).parents[2]
    return subprocess.run(command, env=other, cwd=root, check=True, stdout=-1, text=True).stdout


NAMES = (
    "search_with_min", "symmetric_search", "descend", "positive_scale",
    "move_levels", "round_columns", "best_scales", "IQ4",
    "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_fused(name: str) -> None:
    known = searches()
    assert tuple(known) == NAMES
    tables = name == "IQ4"  # with AVX-512 an instruction of it looks levels up
    ir = code_elsewhere(name) if tables else code_of(*known[name])
    for triple, cpu in TRIPLES:
        made = assembly(ir, triple, cpu)
        assert re.search(r"\bfmul\b", made)
        assert re.search(r"\bfadd\b", made)
        assert not FUSED.search(made)


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
