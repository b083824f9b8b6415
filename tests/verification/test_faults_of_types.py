"""Faults in weights, under every quantized type: what rounding loses must not hide them.

Whole files of every type would take minutes to quantize; the gate of the weights looks at tensors
one by one, and so do these tests.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS, dequantize, quantize
from lfm2gguf.reference import Weights
from lfm2gguf.verification.limits import TENSOR_LIMITS
from lfm2gguf.verification.measure.rounding import plainly_rounded
from lfm2gguf.verification.measure.tensors import TensorDifference, tensor_differences
from lfm2gguf.verification.verdict.gates import IMPORTANCE, PLAIN, Room, tensor_gate
from tests.making.lanes import slow_but
from tests.verification import faults

ROWS = 64  # of a tensor: enough to tell, and quick where a type searches a grid
NAMES = {f"feed_forward.w{i}": f"ffn_{ours}" for i, ours in ((1, "gate"), (2, "down"), (3, "up"))}
NAMES |= {f"self_attn.{n}_proj": f"attn_{n}" for n in "qk"}
IN_MATRICES = (
    "one tensor's rows permuted",
    "q and k swapped",
    "gate and up swapped",
    "a LoRA delta missing",
    "one layer's feed-forward at two bits",
)
TYPES = [type for type in CODECS if type.is_quantized]
QUICK = (GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.Q2_K, GGMLType.TQ2_0, GGMLType.MXFP4)
# Types that lose so much themselves, with room for an importance matrix that they are written with,
# that a delta of a fifth of the weights' size hides in it: the gates of --lora tell there.
HIDE_A_DELTA = {GGMLType.IQ1_S, GGMLType.IQ2_XXS, GGMLType.IQ2_XS, GGMLType.Q1_0}


def room_of(type: GGMLType) -> Room:
    return IMPORTANCE if CODECS[type].needs_importance else PLAIN


def differences(
    type: GGMLType, expected: dict[str, Any], stored: dict[str, Any]
) -> list[TensorDifference]:
    """Compare tensors, by their names in a file, with what a file holds of them."""
    config = SimpleNamespace(layers=("",) * 8)
    shapes = {theirs(name): x.shape for name, x in expected.items()}

    def side(tensors: dict[str, Any]) -> Any:
        rows = {theirs(name): x for name, x in tensors.items()}
        return Weights(config, shapes, lambda name, start, stop: rows[name][start:stop])  # type: ignore[arg-type]

    file: Any = SimpleNamespace(
        tensors={name: SimpleNamespace(type=type, shape=x.shape) for name, x in expected.items()}
    )
    return tensor_differences(file, side(stored), side(expected))


def theirs(name: str) -> str:
    block, kind = name.removeprefix("blk.").removesuffix(".weight").split(".")
    [part] = [theirs for theirs, ours in NAMES.items() if ours == kind]
    return f"model.layers.{block}.{part}.weight"


def ours(name: str) -> str | None:
    for part, kind in NAMES.items():
        if part in name:
            return f"blk.{name.split('.')[2]}.{kind}.weight"
    return None


@pytest.fixture(scope="session")
def original(example: Path) -> dict[str, Any]:
    return matrices(example)


def matrices(folder: Path) -> dict[str, Any]:
    checkpoint = Checkpoint.open(folder)
    return {name: checkpoint.tensors[key].read().astype(np.float32)[:ROWS]
            for key in checkpoint.tensors if (name := ours(key))}  # fmt: skip


@pytest.fixture(scope="session", params=IN_MATRICES)
def faulty(
    request: pytest.FixtureRequest,
    example: Path,
    original: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, dict[str, Any]]:
    """A fault, and the matrices that it changes."""
    editor = faults.Editor(example, tmp_path_factory.mktemp("faulty") / "checkpoint")
    faults.IN_THE_CHECKPOINT[request.param](editor)
    found = matrices(editor.folder)
    return request.param, {n: x for n, x in found.items() if (x != original[n]).any()}


@pytest.mark.parametrize("type", slow_but(QUICK, TYPES), ids=lambda type: type.name)
def test_a_fault_shows_in_every_type(
    type: GGMLType, faulty: tuple[str, dict[str, Any]], original: dict[str, Any]
) -> None:
    fault, changed = faulty
    stored = {name: plainly_rounded(x, type) for name, x in changed.items()}
    [gate] = tensor_gate(differences(type, {n: original[n] for n in stored}, stored), room_of(type))
    hidden = fault == "a LoRA delta missing" and type in HIDE_A_DELTA
    assert gate.passed == hidden, gate.value


@pytest.mark.parametrize("type", slow_but(QUICK, TYPES), ids=lambda type: type.name)
def test_sound_weights_pass_and_a_flipped_byte_of_a_scale_does_not(
    type: GGMLType, original: dict[str, Any]
) -> None:
    name = "blk.1.ffn_gate.weight"
    expected = original[name]
    equal = np.ones(expected.shape[-1], np.float32) if CODECS[type].needs_importance else None
    data = quantize(expected, type, equal).reshape(-1)
    block = 20 * type.type_size
    for flipped, passes in ((0, True), (0xFF, False)):
        data[block + high_byte_of_scale(type)] ^= flipped
        with np.errstate(all="ignore"):
            stored = dequantize(data, type, expected.shape)
            [gate] = tensor_gate(differences(type, {name: expected}, {name: stored}), room_of(type))
        assert gate.passed == passes, gate.value


def high_byte_of_scale(type: GGMLType) -> int:
    """Where sign and exponent of a block's scale lie (ggml/src/ggml-common.h)."""
    if type is GGMLType.MXFP4:  # an exponent alone
        return 0
    if type is GGMLType.IQ1_M:  # in the upper bits of its sub-scales
        return 48 + 7
    fields = CODECS[type].layout.fields
    assert fields is not None
    return int(fields["d"][1]) + 1


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_an_importance_matrix_has_room(spread: float, original: dict[str, Any]) -> None:
    """Columns that differ as log-normal numbers do, more than the example model's."""
    rng = np.random.default_rng(0)
    type, name = GGMLType.Q2_K, "blk.1.ffn_gate.weight"
    expected = original[name]
    matrix = np.exp(spread * rng.standard_normal(expected.shape[-1])).astype(np.float32)
    stored = {name: dequantize(quantize(expected, type, matrix), type, expected.shape)}
    [gate] = tensor_gate(differences(type, {name: expected}, stored), IMPORTANCE)
    assert gate.passed


def test_every_type_has_limits() -> None:
    assert set(TENSOR_LIMITS) == {type.name for type in CODECS}
