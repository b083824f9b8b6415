"""The reference of the mixtures of experts, against transformers (golden/make_moe_logits.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.reference.experts import Routing
from lfm2gguf.reference.forward import Reference
from lfm2gguf.reference.weights import Weights
from lfm2gguf.verification.measure.tensors import tensor_differences, unmatched
from tests.conversion.test_parity import ROOT
from tests.making.checkpoints import pack, save
from tests.making.moe_cases import CASES, IDS, SHOWN, make_moe, wide_weights

GOLDEN = json.loads((ROOT / "tests/golden/moe_logits.json").read_text())["cases"]


def reference_logits(weights: Weights) -> np.ndarray:
    reference = Reference(weights)
    states = reference.states([np.array(IDS, np.int32)], [np.arange(len(IDS))])
    return reference.logits(states)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    source = make_moe(CASES[name], tmp_path / "M")
    ours = reference_logits(Weights.from_checkpoint(Checkpoint.open(source)))
    expected = np.array(GOLDEN[name])
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours[:, ::SHOWN], expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_experts_one_by_one_packed_and_stacked(tmp_path: Path) -> None:
    config = CASES["as released"]
    source = make_moe(config, tmp_path / "M")
    one_by_one = reference_logits(Weights.from_checkpoint(Checkpoint.open(source)))
    file = convert(source, tmp_path / "m.gguf", "F32").files[0].path
    stacked = reference_logits(Weights.from_gguf(GGUFFile.open(file)))
    np.testing.assert_array_equal(stacked, one_by_one)
    save(source, pack(wide_weights(config)), "F32")
    packed = reference_logits(Weights.from_checkpoint(Checkpoint.open(source)))
    np.testing.assert_array_equal(packed, one_by_one)


@pytest.mark.slow
def test_llama_cpp_computes_the_same(tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    source = make_moe(CASES["as released"], tmp_path / "M")
    file = convert(source, tmp_path / "m.gguf", "F32").files[0].path
    model = llama_cpp.Llama(str(file), n_ctx=64, logits_all=True, verbose=False, n_threads=1)
    model.eval(IDS)
    theirs = np.array(model.scores[: len(IDS)])
    model.close()
    ours = reference_logits(Weights.from_gguf(GGUFFile.open(file)))
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())


def test_the_bias_chooses_and_does_not_weigh() -> None:
    scores = np.log(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32))  # sigmoid: 1/2, 2/3, 3/4, 4/5
    bias = np.array([1, 0, 0, 0], np.float32)
    chosen, weights = Routing(2, normalized=False, scaling=2.0).route(scores, bias)
    assert chosen.tolist() == [[0, 3]]
    np.testing.assert_allclose(weights, [[1.0, 1.6]], rtol=1e-6)
    chosen, weights = Routing(2).route(scores, None)
    assert chosen.tolist() == [[3, 2]]
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)


@pytest.mark.slow
def test_each_expert_is_observed_for_the_tokens_that_it_gets(tmp_path: Path) -> None:
    """What an importance matrix is made of."""
    source = make_moe(CASES["as released"], tmp_path / "M")
    seen: dict[str, int] = {}

    def observe(name: str, x: np.ndarray) -> None:
        seen[name] = seen.get(name, 0) + len(x)

    reference = Reference(Weights.from_checkpoint(Checkpoint.open(source)), observe)
    reference.states([np.array(IDS, np.int32)], [np.arange(len(IDS))])
    experts = {n: c for n, c in seen.items() if "layers.3.feed_forward.experts." in n}
    assert sum(c for name, c in experts.items() if "w1" in name) == 2 * len(IDS)
    assert seen["model.layers.3.feed_forward.gate.weight"] == len(IDS)


@pytest.mark.slow
def test_a_mixture_is_verified_like_any_model(tmp_path: Path) -> None:
    """Every expert is compared with its own: one that is damaged is found and named."""
    source = make_moe(CASES["as released"], tmp_path / "M")
    file = GGUFFile.open(convert(source, tmp_path / "m.gguf", "Q8_0").files[0].path)
    for packed in (False, True):
        if packed:
            save(source, pack(wide_weights(CASES["as released"])), "F32")
        reference = Weights.from_checkpoint(Checkpoint.open(source))
        assert not unmatched(file, Weights.from_gguf(file), reference)
        found = tensor_differences(file, Weights.from_gguf(file), reference)
        assert {d.name for d in found} == set(file.tensors)
        assert max(d.worst for d in found) < 0.02
    info = file.tensors["blk.3.ffn_up_exps.weight"]
    with file.path.open("r+b") as damaged:
        damaged.seek(info.offset + 5 * info.nbytes // 8)  # the first block of expert 5
        damaged.write(b"\x00\x40")
    worst = max(tensor_differences(file, Weights.from_gguf(file), reference), key=lambda d: d.worst)
    assert worst.name == info.name
