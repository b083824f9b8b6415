"""Adapter files against convert_lora_to_gguf.py (golden/make_lora_gguf.py), and in llama.cpp."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert, convert_lora
from tests.cli.command import refusal, run
from tests.conversion.test_parity import ROOT
from tests.golden.summary import digest, value
from tests.making.adapters import CASES, GGUF_CASES, AdapterCase, linear, make_adapter, make_base
from tests.making.checkpoints import config
from tests.making.llama import logits

GOLDEN = json.loads((ROOT / "tests/golden/lora_gguf.json").read_text())["cases"]
Q = "model.layers.1.self_attn.q_proj"


BASE_LAYERS = GGUF_CASES["base-layers"]
GROWN = replace(
    BASE_LAYERS,
    shapes={n: (320, 64) if "embed_tokens.base" in n else s for n, s in BASE_LAYERS.shapes.items()},
)


def made(case: AdapterCase, folder: Path) -> tuple[Path, Path]:
    return make_base(case, folder / "Base"), make_adapter(case, folder / "tune")


@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("name", GGUF_CASES)
def test_the_file_is_llama_cpps(name: str, type: str, tmp_path: Path) -> None:
    source, adapter = made(GGUF_CASES[name], tmp_path)
    path = convert_lora(adapter, source, tmp_path / "out.gguf", type).file.path
    file, golden = GGUFFile.open(path), GOLDEN[name][type]
    metadata = {
        key: value([t.name for t in (v.type, v.item_type) if t], v.value)
        for key, v in file.metadata.items()
    }
    assert list(metadata.items()) == list(golden["metadata"].items())
    assert list(file.tensors) == list(golden["tensors"])
    assert [t.type.name for t in file.tensors.values()] == golden["types"]
    for tensor, known in golden["tensors"].items():
        info = file.tensors[tensor]
        assert list(info.shape) == known["shape"], tensor
        assert digest(file.data(tensor).tobytes()) == known[info.type.name], tensor
    assert digest(path.read_bytes()) == golden["sha256"]


IDS = [1, 40, 50, 60, 70, 80]


@pytest.mark.parametrize(
    "name", ["plain", "patterns", "rslora", "embedding-and-head", "packed-experts"]
)
def test_llama_cpp_computes_what_the_merged_file_does(name: str, tmp_path: Path) -> None:
    source, adapter = made(CASES[name], tmp_path)
    plain = convert(source, tmp_path / "plain.gguf", "F32").files[0].path
    merged = convert(source, tmp_path / "merged.gguf", "F32", lora=adapter).files[0].path
    applied = convert_lora(adapter, source, tmp_path / "adapter.gguf").file.path
    expected, without = logits(merged, IDS), logits(plain, IDS)
    assert np.abs(expected - without).max() > 0.01
    np.testing.assert_allclose(
        logits(plain, IDS, applied), expected, atol=2e-4 * np.abs(expected).max()
    )


def test_a_uniform_scale_changes_alpha_and_no_weight(tmp_path: Path) -> None:
    """rsLoRA with one rank: alpha / sqrt(4) is (2 alpha) / 4."""
    plain = CASES["plain"]
    source, adapter = made(plain, tmp_path)
    first = GGUFFile.open(convert_lora(adapter, source, tmp_path / "a.gguf").file.path)
    other = make_adapter(plain, tmp_path / "rs", use_rslora=True)
    second = GGUFFile.open(convert_lora(other, source, tmp_path / "b.gguf").file.path)
    assert first.get("adapter.lora.alpha") == 8.0
    assert second.get("adapter.lora.alpha") == 16.0
    assert all((first.data(name) == second.data(name)).all() for name in first.tensors)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (GROWN, "holds 'model.embed_tokens.weight' whole"),
        (CASES["dora"], "is DoRA"),
        (CASES["modules-to-save"], "holds 'model.embed_tokens.weight' whole"),
        (replace(CASES["embedding-and-head"], base=config()), "are one weight in the base"),
        (AdapterCase(config(), {}), "holds no LoRA factors"),
        (AdapterCase(config(), linear(Q, 64, 32)), "do not make up the weight's (64, 64)"),
        (AdapterCase(config(), linear("model.layers.9.conv.in_proj", 3, 3)), "does not have"),
        (
            AdapterCase(
                GGUF_CASES["experts"].base,
                linear("model.layers.2.feed_forward.experts.0.w1", 96, 256),
            ),
            "not 'model.layers.2.feed_forward.experts.1.w1.weight'",
        ),
    ],
)
def test_what_an_adapter_file_has_no_place_for(
    case: AdapterCase, words: str, tmp_path: Path
) -> None:
    source, adapter = made(case, tmp_path)
    arguments = ["convert-lora", adapter, "--base", source, "-o", tmp_path / "out.gguf"]
    assert words in refusal(*arguments, within=tmp_path)


def test_the_base_that_the_adapter_names(tmp_path: Path) -> None:
    """Of which only the config is needed."""
    source, _ = made(CASES["plain"], tmp_path)
    (source / "model.safetensors").unlink()
    adapter = make_adapter(CASES["plain"], tmp_path / "b", base_model_name_or_path=str(source))
    result = run("convert-lora", adapter, "-o", tmp_path, "--json")
    assert result.code == 0
    report = json.loads(result.out)
    assert Path(report["files"][0]["path"]) == tmp_path / "b-F32-LoRA.gguf"
    assert "4 deltas" in report["notes"][0]


def test_no_base_at_all(tmp_path: Path) -> None:
    _, adapter = made(CASES["plain"], tmp_path)
    arguments = ["convert-lora", adapter, "-o", tmp_path / "out.gguf"]
    assert "give it with base=... (--base)" in refusal(*arguments, within=tmp_path)
