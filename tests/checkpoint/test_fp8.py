"""FP8 weights and their scales, against torch and llama.cpp (golden/make_fp8.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

import lfm2gguf
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.doctor import diagnose
from lfm2gguf.errors import UnsupportedError
from lfm2gguf.storage import SAFETENSORS
from tests.golden.summary import digest
from tests.making.checkpoints import CASES
from tests.making.fp8 import BLOCK, FP8_CASES, Fp8, Stored, make_fp8, random_bits, read, write

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/fp8.json").read_text(encoding="utf-8"))
NAME = "model.layers.0.feed_forward.w1.weight"
EXPERTS = "model.layers.2.feed_forward.experts."
DENSE = Fp8(CASES["LFM2-rows-of-256"])


def values(dtype: str) -> np.ndarray:
    """The 256 numbers of a type by torch, float32."""
    return np.frombuffer(bytes.fromhex(GOLDEN["values"][dtype]), ">f4").astype(np.float32)


@pytest.mark.parametrize("dtype", GOLDEN["values"])
def test_the_numbers_are_those_of_torch(dtype: str) -> None:
    widen = SAFETENSORS[dtype].widen
    assert widen is not None
    found = widen(np.arange(256, dtype=np.uint8)[None], shape=(1, 256))[0]
    assert np.array_equal(found, values(dtype), equal_nan=True)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if "experts" in n else []) for n in FP8_CASES],
)
def test_files_are_what_llama_cpp_writes(name: str, tmp_path: Path) -> None:
    folder = make_fp8(FP8_CASES[name], tmp_path / name)
    lfm2gguf.convert(folder, tmp_path / "m.gguf", "F32")
    tensors = GGUFReader(tmp_path / "m.gguf").tensors
    assert {t.name: digest(t.data.tobytes()) for t in tensors} == GOLDEN["cases"][name]


def edited(folder: Path, changes: Stored, *gone: str) -> None:
    """Add tensors, and take away those whose names hold one of ``gone``."""
    file = folder / "model.safetensors"
    left = {n: t for n, t in read(file).items() if not any(part in n for part in gone)}
    write(file, left | changes)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A mixture whose gates and ups of a layer are one tensor in FP8; its bits."""
    case = FP8_CASES["LFM2-8-experts-blocks"]
    folder = make_fp8(case, tmp_path_factory.mktemp("packed") / "model")
    bits = random_bits(5, (8, 512, 256))
    down = random_bits(6, (8, 256, 256))
    both = {
        f"{EXPERTS}gate_up_proj": ("F8_E5M2", bits.shape, bits.tobytes()),
        f"{EXPERTS}down_proj": ("F8_E4M3", down.shape, down.tobytes()),
        f"{EXPERTS}down_proj_scale": ("F32", (8,), np.ones(8, "<f4").tobytes()),
        f"{EXPERTS}down_proj_activation_scale": ("F32", (8,), np.ones(8, "<f4").tobytes()),
    }
    edited(folder, both, EXPERTS)
    return folder, bits


@pytest.mark.parametrize(
    ("shape", "end"),
    [((), "_scale"), ((1,), "_scale"), ((8,), "_scale"), ((8, 1, 1), "_scale_inv"),
     ((8, 512), "_scale"), ((8, 512, 1), "_scale"), ((8, 8, 3), "_scale_inv")],
    ids=str,
)  # fmt: skip
def test_scales_of_packed_experts(
    packed: tuple[Path, np.ndarray], tmp_path: Path, shape: tuple[int, ...], end: str
) -> None:
    folder, bits = packed
    name = f"{EXPERTS}gate_up_proj"
    scale = np.random.default_rng(2).uniform(0.001, 0.01, shape).astype("<f4")
    edited(folder, {name + end: ("F32", shape, scale.tobytes())}, f"{name}_scale")
    if shape == (8, 8, 3):
        whole = np.kron(scale, np.ones((1, *BLOCK), np.float32))[..., :256]
    else:
        whole = scale.reshape(shape + (1,) * (3 - len(shape)) if len(shape) != 1 else (-1, 1, 1))
    expected = values("F8_E5M2")[bits] * whole
    checkpoint = Checkpoint.open(folder)
    assert np.array_equal(checkpoint.read(name), expected)
    assert np.array_equal(checkpoint.read(name, 3, 5), expected[3:5])
    lfm2gguf.convert(folder, tmp_path / "m.gguf", "F32")
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert np.array_equal(tensors["blk.2.ffn_gate_exps.weight"], expected[:, :256])
    assert np.array_equal(tensors["blk.2.ffn_up_exps.weight"], expected[:, 256:])


@pytest.mark.parametrize("shape", [(3, 2), (4, 4), (512, 2)])
def test_scales_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    folder = make_fp8(FP8_CASES["LFM2-E5M2-blocks"], tmp_path / "model")
    scale = np.ones(shape, "<f4")
    edited(folder, {f"{NAME}_scale_inv": ("F32", shape, scale.tobytes())}, f"{NAME}_scale_inv")
    with pytest.raises(UnsupportedError, match=r"FP8.*F8_E5M2"):
        Checkpoint.open(folder)


def test_a_matrix_whose_scale_is_missing(tmp_path: Path) -> None:
    folder = make_fp8(FP8_CASES["LFM2-E5M2-blocks"], tmp_path / "model")
    edited(folder, {}, f"{NAME}_scale_inv")
    with pytest.raises(UnsupportedError, match=r"FP8.*F8_E5M2"):
        Checkpoint.open(folder)


def test_a_plain_cast_is_read_as_it_stands(tmp_path: Path) -> None:
    """As llama.cpp's converter reads it, where no config speaks of quantization."""
    folder = make_fp8(DENSE, tmp_path / "model")
    edited(folder, {}, "_scale_inv")
    checkpoint = Checkpoint.open(folder)
    bits = np.frombuffer(read(folder / "model.safetensors")[NAME][2], np.uint8)
    assert np.array_equal(checkpoint.read(NAME).ravel(), values("F8_E4M3")[bits])
    assert "in FP8 without scales" in checkpoint.notes[0]


@pytest.mark.parametrize("name", ["LFM2-E5M2-blocks", "LFM2-8-experts-blocks"])
def test_doctor_has_no_error(name: str, tmp_path: Path) -> None:
    found = {f.id: f for f in diagnose(make_fp8(FP8_CASES[name], tmp_path / "model")).findings}
    assert "dtype" not in found
    assert "not-examined" in found
