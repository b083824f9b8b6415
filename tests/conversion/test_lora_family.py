"""Adapters of vision, audio and retrieval models: what is for the text model, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert, convert_lora
from tests.cli.command import refusal
from tests.conversion.test_lora import NAMES, TIED, floats, merge
from tests.making import multimodal
from tests.making.adapters import (
    CASES,
    GGUF_CASES,
    PREFIX,
    THREE,
    UNTIED,
    AdapterCase,
    embedding,
    linear,
    make_adapter,
    tensors,
)
from tests.making.checkpoints import weights


def test_a_retrieval_model(tmp_path: Path) -> None:
    """Its names have no ``model.``, and neither have those of its adapters."""
    retrieval = GGUF_CASES["retrieval"]
    result = merge(retrieval, tmp_path)
    assert "4 deltas (1 conv.in_proj, 2 feed_forward.w2, 1 self_attn.q_proj)" in result.notes[0]
    file = GGUFFile.open(result.files[0].path)
    same = GGUFFile.open(merge(CASES["plain"], tmp_path / "text").files[0].path)
    for name in NAMES.values():
        if name != "output.weight":
            assert (file.data(name) == same.data(name)).all()


class TestAnEmbeddingModel:
    """Without a head, there is none to be parted from the embedding."""

    @pytest.mark.parametrize(
        ("shapes", "settings"),
        [
            ({"embed_tokens.weight": (320, 64)}, {"modules_to_save": ["embed_tokens"]}),
            ({n.removeprefix("model."): s for n, s in embedding().items()}, {}),
        ],
    )
    def test_its_embedding(
        self, shapes: dict[str, tuple[int, ...]], settings: dict[str, Any], tmp_path: Path
    ) -> None:
        case = AdapterCase(GGUF_CASES["retrieval"].base, shapes, settings)
        file = GGUFFile.open(merge(case, tmp_path).files[0].path)
        assert "output.weight" not in file.tensors
        rows = 320 if settings else 300
        assert file.tensors["token_embd.weight"].shape == (rows, 64)
        assert file.get("lfm2.vocab_size") == rows
        plain = weights(TIED)["model.embed_tokens.weight"]
        assert (floats(file, "token_embd.weight")[:300] != plain).any()


def in_text_model(
    root: str, others: tuple[str, ...] = (), **config: Any
) -> tuple[AdapterCase, AdapterCase]:
    """An adapter by the names of a model around the text model, and by those of that alone."""
    whole = {**THREE, **linear("model.layers.1.self_attn.k_proj", 32, 64)}
    plain = AdapterCase(UNTIED, whole, config)
    named = {name.replace("model.", root, 1): shape for name, shape in whole.items()}
    for module in others:
        named |= linear(module, 64, 64)
    return replace(plain, shapes=named), plain


@pytest.mark.parametrize(
    ("name", "root", "others"),
    [
        ("LFM2.5-VL-Tune-v2-float32", "model.language_model.", ()),
        ("LFM2.5-VL-Tune-v2-float32", "language_model.model.", ()),
        (
            "LFM2.5-VL-Tune-v2-float32",
            "model.language_model.",
            (
                "model.vision_tower.encoder.layers.0.self_attn.q_proj",
                "model.multi_modal_projector.linear_1",
            ),
        ),
        ("LFM2.5-Audio-1.5B", "lfm.", ("conformer.layers.0.self_attn.linear_q",)),
    ],
)
def test_the_text_model_in_another(
    name: str, root: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    """peft has the names of the whole model; patterns are for those."""
    patterns = {f"{root}layers.1.self_attn.q_proj": 32}
    named, alone = in_text_model(root, others, alpha_pattern=patterns)
    source = multimodal.make_multimodal(multimodal.CASES[name], tmp_path / "Base")
    folder = make_adapter(named, tmp_path / "tune")
    result = convert(source, tmp_path / "out.gguf", "F32", lora=folder)
    assert any("of its tensors are left out" in note for note in result.notes) == bool(others)
    plain, file = (
        GGUFFile.open(convert(source, tmp_path / "plain.gguf", "F32").files[0].path),
        GGUFFile.open(result.files[0].path),
    )
    factors = {n.removeprefix(PREFIX): x for n, x in tensors(named).items()}
    changed = {n for n in file.tensors if (file.data(n) != plain.data(n)).any()}
    expected = {}
    for module in {n.split(".lora")[0] for n in alone.shapes}:
        there = module.replace("model.", root, 1)
        a, b = (factors[f"{there}.lora_{x}.weight"] for x in "AB")
        target = NAMES.get(f"{module}.weight", "blk.1.attn_k.weight")
        expected[target] = (32 if "q_proj" in module else 8) / 4 * b @ a
    assert changed == set(expected)
    for target, delta in expected.items():
        found = floats(file, target) - floats(plain, target)
        np.testing.assert_allclose(found, delta, atol=1e-5)
    applied = convert_lora(folder, source, tmp_path / "adapter.gguf")
    assert {n.removesuffix(".lora_a") for n in GGUFFile.open(applied.file.path).tensors} >= changed
    assert len(applied.notes) == 1 + bool(others)


def test_the_projector_of_a_vision_model(tmp_path: Path) -> None:
    """Named as transformers 5 names it, where the checkpoint has published names."""
    tower, case = "model.vision_tower.", multimodal.CASES["LFM2-VL-450M"]
    targets = {
        f"{tower}encoder.layers.1.self_attn.out_proj": ("v.blk.1.attn_out.weight", 64, 64),
        f"{tower}embeddings.patch_embedding": ("v.patch_embd.weight", 64, 768),
        "model.multi_modal_projector.linear_1": ("mm.1.weight", 160, 256),
    }
    shapes = in_text_model("model.language_model.")[0].shapes | {
        name: shape
        for module, (_, *size) in targets.items()
        for name, shape in linear(module, *size).items()
    }
    adapter = AdapterCase(TIED, shapes)
    source = multimodal.make_multimodal(replace(case, dtype="F32"), tmp_path / "Base")
    folder = make_adapter(adapter, tmp_path / "tune")
    plain, file = (
        GGUFFile.open(convert(source, tmp_path / f"{lora}.gguf", "F32", projector=True,
                              lora=folder if lora else None).files[0].path)
        for lora in (False, True)
    )  # fmt: skip
    changed = {n for n in file.tensors if (file.data(n) != plain.data(n)).any()}
    assert changed == {name for name, *_ in targets.values()}
    factors = tensors(adapter)
    for module, (name, *_) in targets.items():
        a, b = (factors[f"{PREFIX}{module}.lora_{x}.weight"] for x in "AB")
        delta = 2 * b @ a
        if "patch" in module:
            delta = delta.reshape(-1, 16, 16, 3).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(floats(file, name) - floats(plain, name), delta, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "options", "words"),
    [
        ("model.vision_tower.encoder.layers.0.self_attn.q_proj", [], "of the vision tower"),
        ("model.language_model.layers.1.self_attn.q_proj", ["--mmproj"], "of the text model"),
    ],
)
def test_an_adapter_for_the_other_file(
    module: str, options: list[str], words: str, tmp_path: Path
) -> None:
    source = multimodal.make_multimodal(multimodal.CASES["LFM2-VL-450M"], tmp_path / "Base")
    folder = make_adapter(AdapterCase(TIED, linear(module, 64, 64)), tmp_path / "tune")
    arguments = ["convert", source, "--lora", folder, "-o", tmp_path / "out.gguf", *options]
    message = refusal(*arguments, within=tmp_path)
    assert f"nothing for this file: its tensors are {words}" in message
