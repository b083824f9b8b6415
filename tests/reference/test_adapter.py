"""The reference's own merge of an adapter, against peft's and against the converter's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert
from lfm2gguf.checkpoint import Adapter, Checkpoint
from lfm2gguf.errors import TensorError, UnsupportedError
from lfm2gguf.reference.adapter import AdaptedWeights, adapted
from lfm2gguf.reference.weights import Weights
from tests.conversion.test_parity import ROOT
from tests.making.adapters import (
    CASES,
    GGUF_CASES,
    IN,
    AdapterCase,
    length,
    linear,
    make_adapter,
    make_base,
)
from tests.making.checkpoints import config

GOLDEN = json.loads((ROOT / "tests/golden/lora.json").read_text())["cases"]
ALL = {**CASES, **GGUF_CASES}
ALL = {name: case for name, case in ALL.items() if name not in ("retrieval", "activated")}


def open_adapted(case: AdapterCase, folder: Path) -> AdaptedWeights:
    make_base(case, folder / "Base")
    make_adapter(case, folder / "tune")
    weights = Weights.from_checkpoint(Checkpoint.open(folder / "Base"))
    return adapted(weights, Adapter.open(folder / "tune"))


def by_hf_name(weights: Weights, name: str) -> np.ndarray:
    if name in weights.shapes:
        return weights.read(name)
    experts, matrix = name.rsplit(".", 1)
    of = ("w2",) if matrix == "down_proj" else ("w1", "w3")
    return np.concatenate([weights.read(f"{experts}.{w}.weight") for w in of], axis=1)


@pytest.mark.parametrize("name", CASES)
def test_it_is_pefts(name: str, tmp_path: Path) -> None:
    weights = open_adapted(CASES[name], tmp_path)
    for hf_name, expected in GOLDEN[name].items():
        ours = by_hf_name(weights, hf_name).reshape(-1)
        ours = ours[np.linspace(0, ours.size - 1, len(expected)).astype(int)]
        np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6)
    if "packed" not in name:
        assert weights.changed == set(GOLDEN[name])


@pytest.mark.parametrize("name", ALL)
def test_it_is_what_converting_merges(name: str, tmp_path: Path) -> None:
    weights = open_adapted(ALL[name], tmp_path)
    made = convert(
        tmp_path / "Base", tmp_path / "f.gguf", "F32", lora=tmp_path / "tune", jobs=1
    ).files[0]
    file = Weights.from_gguf(GGUFFile.open(made.path))
    assert set(file.shapes) == set(weights.shapes)
    for tensor in file.shapes:
        found, expected = (w.read(tensor).reshape(-1) for w in (file, weights))
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def read_all(case: AdapterCase, folder: Path) -> None:
    weights = open_adapted(case, folder)
    for name in weights.changed:
        weights.read(name)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (linear("model.layers.9.conv.in_proj", 192, 64), "which the base model lacks"),
        (linear("model.layers.0.conv.in_proj", 64, 64), "do not make up the weight's"),
        (linear(IN, 192, 64) | length(IN, 64), "needs 192 values"),
    ],
)
def test_what_fits_nowhere_is_refused(
    shapes: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TensorError, match=message):
        read_all(AdapterCase(config(), shapes), tmp_path)


def test_an_activated_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="an activated LoRA"):
        open_adapted(GGUF_CASES["activated"], tmp_path)
