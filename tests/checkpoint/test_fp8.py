"""FP8 weights with their scales: the numbers of OCP's tables, multiplied out on reading."""

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
from tests.making.checkpoints import CASES, make

# OCP 8-bit floating point specification, 1.0, table 1 (E4M3), and numbers between.
KNOWN = {
    0x00: 0.0, 0x01: 2**-9, 0x07: 0.875 * 2**-6, 0x08: 2**-6, 0x38: 1.0, 0x39: 1.125, 0x7E: 448.0,
    0xB8: -1.0, 0xFE: -448.0,
}  # fmt: skip
NAME = "model.layers.0.feed_forward.w1.weight"
BLOCK = 128


def test_the_numbers() -> None:
    widen = SAFETENSORS["F8_E4M3"].widen
    assert widen is not None
    values = widen(np.arange(256, dtype=np.uint8)[None], shape=(1, 256))[0]
    assert {bits: float(values[bits]) for bits in KNOWN} == KNOWN
    assert np.flatnonzero(np.isnan(values)).tolist() == [0x7F, 0xFF]


def written(folder: Path, scale: np.ndarray, end: str) -> np.ndarray:
    """Store one matrix in FP8 with this scale; return its bits."""
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + n]), raw[8 + n :]
    rows, columns = header[NAME]["shape"]
    bits = np.random.default_rng(1).integers(0, 0x7F, (rows, columns), np.uint8)
    parts, at, new = [], 0, {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        first, last = info["data_offsets"]
        blob = bits.tobytes() if name == NAME else data[first:last]
        dtype = "F8_E4M3" if name == NAME else info["dtype"]
        new[name] = info | {"dtype": dtype, "data_offsets": [at, at + len(blob)]}
        parts.append(blob)
        at += len(blob)
    blob = scale.astype("<f4").tobytes()
    new[NAME + end] = {
        "dtype": "F32", "shape": list(scale.shape), "data_offsets": [at, at + len(blob)]
    }  # fmt: skip
    text = json.dumps(new).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts) + blob)
    return bits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = make(CASES["LFM2-rows-of-256"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("shape", "end"),
    [((4, 2), "_scale_inv"), ((), "_scale"), ((1,), "_scale"), ((512, 1), "_scale")],
    ids=str,
)
def test_scales(folder: Path, tmp_path: Path, shape: tuple[int, ...], end: str) -> None:
    scale = np.random.default_rng(2).uniform(0.001, 0.01, shape).astype(np.float32)
    bits = written(folder, scale, end)
    exponent = np.where(bits >> 3, 2.0 ** ((bits >> 3) - 7.0), 2.0**-6)
    values = (exponent * ((bits >> 3 > 0) + (bits & 7) / 8)).astype(np.float32)
    if len(shape) == 2 and shape[1] > 1:
        whole = np.kron(scale, np.ones((BLOCK, BLOCK), np.float32))
    else:
        whole = np.broadcast_to(scale.reshape(-1, 1), bits.shape)
    checkpoint = Checkpoint.open(folder)
    assert np.array_equal(checkpoint.read(NAME), values * whole)
    assert np.array_equal(checkpoint.read(NAME, 100, 300), (values * whole)[100:300])
    assert "1 matrices in FP8" in checkpoint.notes[0]
    done = lfm2gguf.convert(folder, tmp_path / "m.gguf", "F32")
    assert done
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert np.array_equal(tensors["blk.0.ffn_gate.weight"], values * whole)


def test_scales_of_another_shape(folder: Path) -> None:
    written(folder, np.ones((3, 2), np.float32), "_scale_inv")
    with pytest.raises(UnsupportedError, match=r"FP8.*F8_E4M3"):
        Checkpoint.open(folder)


def test_doctor_has_no_error(folder: Path) -> None:
    written(folder, np.full((4, 2), 0.01, np.float32), "_scale_inv")
    found = {finding.id: finding for finding in diagnose(folder).findings}
    assert "dtype" not in found
    assert found["not-examined"].where == NAME
