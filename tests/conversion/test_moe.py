"""Mixtures of experts against llama.cpp's two programs (golden/make_moe.py), and in llama.cpp."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import convert
from lfm2gguf.errors import Lfm2ggufError
from tests.cli.command import refusal
from tests.conversion.test_parity import ROOT, check
from tests.making.checkpoints import MOE, MOE_CASES, Case, make, pack, save, weights, write_json

GOLDEN = json.loads((ROOT / "tests/golden/moe.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["one-by-one", "packed"])
@pytest.mark.parametrize("name", MOE_CASES)
def test_every_type_is_what_llama_quantize_writes(name: str, packed: bool, tmp_path: Path) -> None:
    """However the experts are saved, and in whatever order they lie in the shards."""
    case, golden = MOE_CASES[name], GOLDEN[name]
    source = make(case, tmp_path / name)
    if packed:
        shuffled = list(pack(weights(case.config)).items())
        random.Random(7).shuffle(shuffled)
        for file in source.glob("model*"):
            file.unlink()
        save(source, dict(shuffled), case.dtype, case.shards)
    for file in convert(source, source, list(golden["files"]), jobs=1).files:
        check(file.path, file.type, golden)


def edited(tmp_path: Path, **changes: Any) -> Path:
    source = make(Case(MOE), tmp_path / "MoE")
    write_json(source / "config.json", MOE | changes)
    return source


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"routed_scaling_factor": 2.5}, "routed_scaling_factor is 2.5"),
        ({"norm_topk_prob": False}, "norm_topk_prob is False"),
        ({"use_expert_bias": False}, "use_expert_bias is False"),
        ({"num_experts_per_tok": 9}, "9, of 8 experts"),
        ({"num_experts": 9}, "gate.weight' is 8 x 256 where config.json makes it 9 x 256"),
        ({"moe_intermediate_size": 128}, "where config.json makes it 128 x 256"),
        ({"num_dense_layers": 1}, "missing"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size is missing"),
    ],
)
def test_what_the_weights_or_llama_cpp_contradict(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    source = edited(tmp_path, **changes)
    assert words in refusal("convert", source, "-o", tmp_path / "out.gguf", within=tmp_path)


@pytest.mark.slow
def test_a_weight_that_is_not_finite_is_named_with_its_row(tmp_path: Path) -> None:
    source = make(Case(MOE), tmp_path / "MoE")
    tensors = pack(weights(MOE))
    tensors["model.layers.3.feed_forward.experts.gate_up_proj"][2, 300, 5] = np.nan
    save(source, tensors)
    with pytest.raises(
        Lfm2ggufError, match=rf"gate_up_proj' holds nan at row {2 * 512 + 300}, col"
    ):
        convert(source, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_llama_cpp_runs_it(tied: bool, tmp_path: Path) -> None:
    """Untied heads too, which llama.cpp's converter has no place for and its runtime has."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    source = make(Case(MOE | {"tie_word_embeddings": tied}), tmp_path / "MoE")
    file = convert(source, tmp_path, "Q4_K_M").files[0].path
    model = llama_cpp.Llama(str(file), n_ctx=64, logits_all=True, verbose=False, n_threads=1)
    model.eval([1, 40, 50, 60])
    logits = np.array(model.scores[:4])
    model.close()
    assert np.isfinite(logits).all()
    assert logits.std() > 0
