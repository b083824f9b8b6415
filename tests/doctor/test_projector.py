"""Projectors: sound ones, ones with a fault in their keys, and what libmtmd says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import convert, diagnose
from lfm2gguf.doctor import Finding, Severity
from lfm2gguf.doctor.finding import together
from lfm2gguf.gguf_file import Value, ValueType
from tests.doctor.operations import Change, f32, rewrite
from tests.making.multimodal import IMAGE_CASE, make_multimodal
from tests.making.sounds import AUDIO_CASE

U32, F32 = ValueType.UINT32, ValueType.FLOAT32


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Text model and projector of a random vision model, and the projector of an audio model."""
    folder = tmp_path_factory.mktemp("projectors")
    vision = make_multimodal(IMAGE_CASE, folder / "VL")
    audio = make_multimodal(AUDIO_CASE, folder / "Audio")
    made = {
        "text": convert(vision, folder / "text.gguf", "F32", jobs=1),
        "vision": convert(vision, folder / "v.gguf", "F32", projector=True, jobs=1),
        "vision, smaller": convert(vision, folder / "v8.gguf", "Q8_0", projector=True, jobs=1),
        "audio": convert(audio, folder / "a.gguf", "F32", projector=True, jobs=1),
    }
    return {name: conversion.files[0].path for name, conversion in made.items()}


@pytest.mark.parametrize("kind", ["vision", "vision, smaller", "audio"])
def test_one_that_was_just_made_has_no_findings(kind: str, files: dict[str, Path]) -> None:
    assert not diagnose(files[kind]).findings


def test_a_layer_that_was_never_trained_is_noted(files: dict[str, Path], tmp_path: Path) -> None:
    """Ones throughout, as LayerNorm begins; one number alone is nothing to note."""
    ones = {"v.blk.0.ln1.weight": f32(np.ones(64)), "v.scale": f32(np.ones(1))}
    found = diagnose(rewrite(files["vision"], tmp_path / "x.gguf", Change(tensors=ones))).findings
    assert [(f.id, f.where, f.severity) for f in found] == [
        ("constant-tensor", "v.blk.0.ln1.weight", Severity.NOTE)
    ]


def key(name: str, value: Any, type: ValueType = U32) -> Change:
    return Change({f"clip.{name}": None if value is None else Value(type, value)})


PLANTED = {
    "no encoder": (key("has_vision_encoder", False, ValueType.BOOL), "finds no encoder"),
    "no width": (key("vision.embedding_length", None), "is missing"),
    "width as a float": (key("vision.embedding_length", 64.0, F32), "where a uint32 belongs"),
    "no layers": (key("vision.block_count", 0), "is 0"),
    "more layers": (key("vision.block_count", 40), "tensors of block"),
    "other heads": (key("vision.attention.head_count", 7), "does not divide"),
    "other patches": (key("vision.patch_size", 8), "the metadata calls for"),
    "other scale": (key("vision.projector.scale_factor", 4), "the metadata calls for"),
    "other text width": (key("vision.projection_dim", 48), "the metadata calls for"),
    "epsilon": (key("vision.attention.layer_norm_epsilon", 0.0, F32), "is 0.0"),
    "two colours": (
        Change({"clip.vision.image_mean": Value(ValueType.ARRAY, [0.5, 0.5], F32)}),
        "has 2 numbers",
    ),
    "no connector": (Change(names={"mm.2.weight": None}), "is missing"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_finds_what_was_planted(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    change, words = PLANTED[name]
    path = rewrite(files["vision"], tmp_path / "changed.gguf", change)
    errors = [f for f in diagnose(path).findings if f.severity is Severity.ERROR]
    assert errors
    assert any(words in f.what for f in errors), errors
    assert all(f.id == "projector" and f.remedy for f in errors)


LOAD = """
import json, sys
from llama_cpp import llama_cpp as llama, mtmd_cpp as mtmd
text, *projectors = json.loads(sys.argv[1])
llama.llama_backend_init()
model = llama.llama_model_load_from_file(text.encode(), llama.llama_model_default_params())
settings = mtmd.mtmd_context_params_default()
settings.use_gpu, settings.warmup = False, False
print(bool(mtmd.mtmd_init_from_file(projectors[0].encode(), model, settings)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sound", "no width", "two colours", "more layers"])
def test_libmtmd_agrees(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    path = files["vision"]
    if name != "sound":
        path = rewrite(path, tmp_path / "changed.gguf", PLANTED[name][0])
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps([str(files["text"]), str(path)])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.strip() == "True") is (name == "sound"), done.stderr[-500:]


def test_another_programs_projector_is_said_not_to_be_examined(
    files: dict[str, Path], tmp_path: Path
) -> None:
    change = key("projector_type", "ldp", ValueType.STRING)
    found = diagnose(rewrite(files["vision"], tmp_path / "x.gguf", change)).findings
    (finding,) = (f for f in found if f.id == "projector-type")
    assert finding.severity is Severity.WARNING


def test_equal_findings_of_many_tensors_are_one(files: dict[str, Path], tmp_path: Path) -> None:
    norms = {f"v.blk.{i}.ln1.bias": f32(np.zeros(64)) for i in range(2)}
    found = diagnose(rewrite(files["vision"], tmp_path / "x.gguf", Change(tensors=norms))).findings
    zero = [f for f in found if f.id == "zero-tensor"]
    assert len(zero) == 1
    assert {zero[0].where, *zero[0].also} >= set(norms)
    assert zero[0].places.endswith(f"and {len(zero[0].also)} more")


def test_findings_of_one_kind_are_told_one_by_one_while_they_are_few() -> None:
    few = [Finding("rows", Severity.NOTE, f"t{i}", f"{i} rows", "look") for i in range(3)]
    assert together(few) == few
    (one,) = together([*few, Finding("rows", Severity.NOTE, "t3", "3 rows", "look")])
    assert (one.places, one.what) == ("t0 and 3 more", "0 rows, and alike")
