"""Drafts (DSpark) against llama.cpp's two programs (golden/make_drafts.py), and in llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import convert, plan
from lfm2gguf.errors import OptionError, UnsupportedError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.lfm2.drafter import halves
from tests.cli.command import refusal, run
from tests.conversion.test_parity import ROOT, check
from tests.making.draft_models import CASES, DRAFT, DraftCase, make_draft

GOLDEN = json.loads((ROOT / "tests/golden/drafts.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("name", CASES)
def test_every_type_is_what_llama_quantize_writes(name: str, wide: Path, tmp_path: Path) -> None:
    """Names with and without ``model.``, rotations of both kinds, with and without own heads."""
    source, golden = make_draft(CASES[name], tmp_path / name), GOLDEN[name]
    made = convert(source, source, list(golden["files"]), target_model=wide, jobs=1)
    for file in made.files:
        check(file.path, file.type, golden)
    assert any("does not run alone" in note for note in made.notes)


def test_rows_are_ordered_as_neox_rotates_them() -> None:
    weights = np.arange(2 * 8 * 3, dtype=np.float32).reshape(16, 3)
    order = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    assert np.array_equal(halves(8, weights), weights[order])
    assert np.array_equal(halves(8, weights[:8, 0]), weights[order[:8], 0])


def test_llama_cpp_loads_it(wide: Path, tmp_path: Path) -> None:
    """All tensors are there, in the shapes that it computes with: it checks each as it loads."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    source = make_draft(CASES["LFM2.5-2.6B-DSpark"], tmp_path / "LFM2.5-DSpark")
    file = convert(source, tmp_path, "Q4_K_M", target_model=wide).files[0].path
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
    assert model
    assert llama_cpp.llama_model_n_layer(model) == 2
    llama_cpp.llama_model_free(model)


def test_the_command(wide: Path, tmp_path: Path) -> None:
    source = make_draft(CASES["LFM2.5-2.6B-DSpark"], tmp_path / "LFM2.5-DSpark")
    said = refusal("convert", source, "-o", tmp_path, within=tmp_path)
    assert "--target" in said
    assert run("convert", source, "--target", wide, "-qo", tmp_path / "d.gguf").code == 0
    file = GGUFFile.open(tmp_path / "d.gguf")
    assert file.architecture == "dflash"
    assert file.get("tokenizer.ggml.mask_token_id") == 299
    assert file.get("tokenizer.chat_template")
    said = refusal("run", tmp_path / "d.gguf", "-p", "Hello", within=tmp_path)
    assert "dflash" in said


def test_what_is_no_draft_takes_no_target(small: Path, wide: Path) -> None:
    with pytest.raises(OptionError, match="is no draft"):
        plan(small, target_model=wide)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"markov_head_type": "gated"}, "markov_head_type is 'gated'"),
        ({"draft_vocab_size": 100}, "draft_vocab_size is 100"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["sliding_attention"] * 2}, "'sliding_attention'"),
        ({"dflash_config": None}, "dflash_config is missing"),
        ({"dflash_config": {"target_layer_ids": [-1]}}, "not layers' numbers"),
        ({"markov_rank": 32}, "markov_w1.weight' is 300 x 64 where config.json makes it 300 x 32"),
        ({"head_dim": 64}, "where config.json makes it"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str, wide: Path, tmp_path: Path) -> None:
    source = make_draft(DraftCase(), tmp_path / "draft")
    (source / "config.json").write_text(json.dumps(DRAFT | changes))
    assert words in refusal("convert", source, "--target", wide, "-o", tmp_path, within=tmp_path)


def test_it_cannot_be_judged_alone(tmp_path: Path) -> None:
    from lfm2gguf.verification import open_reference

    source = make_draft(DraftCase(), tmp_path / "draft")
    with pytest.raises(UnsupportedError, match="is a draft"):
        open_reference(source)
