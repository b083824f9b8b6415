"""A member parses its config once, however many parts of the plan follow from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.checkpoint import Adapter, Checkpoint
from lfm2gguf.lfm2 import base_tensors, find_deltas, has_projector, make_plan, retrieval, vision
from lfm2gguf.lfm2.audio_config import AudioConfig
from lfm2gguf.lfm2.config import Lfm2Config
from lfm2gguf.lfm2.moe import Experts
from lfm2gguf.lfm2.vision_config import VisionConfig
from tests.making import adapters, checkpoints, multimodal, retrieval_checkpoints

PARSED = (Lfm2Config, Experts, VisionConfig, AudioConfig)


def dense(folder: Path) -> Path:
    return checkpoints.make(checkpoints.CASES["LFM2-rows-of-16"], folder)


def mixture(folder: Path) -> Path:
    return checkpoints.make(checkpoints.MOE_CASES["LFM2-8-experts"], folder)


def embedding(folder: Path) -> Path:
    case = retrieval_checkpoints.CASES["LFM2.5-Embedding-350M"]
    return retrieval_checkpoints.make_retrieval(case, folder)


def colbert(folder: Path) -> Path:
    case = retrieval_checkpoints.CASES["LFM2.5-ColBERT-350M"]
    return retrieval_checkpoints.make_retrieval(case, folder)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each config, and each file beside it, was read."""
    counts: Counter[str] = Counter()

    def watch(owner: Any, name: str, label: str = "") -> None:
        original = getattr(owner, name)

        def read(source: Any, *args: Any, **settings: Any) -> Any:
            counts[label or str(source)] += 1
            return original(source, *args, **settings)

        monkeypatch.setattr(owner, name, read)

    for kind in PARSED:
        watch(kind, "read", kind.__name__)
    for module in (retrieval, vision):
        watch(module, "read_json")
    watch(retrieval, "read_json_list")
    return counts


MADE = {
    "dense": dense,
    "mixture": mixture,
    "embedding": embedding,
    "colbert": colbert,
    "vision": lambda folder: multimodal.make_multimodal(multimodal.CASES["LFM2-VL-450M"], folder),
    "detokenizer": lambda folder: multimodal.make_multimodal(
        multimodal.CASES["audio_detokenizer"], folder
    ),
    "audio": lambda folder: multimodal.make_multimodal(
        multimodal.CASES["LFM2.5-Audio-1.5B"], folder
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_nothing_is_parsed_twice(name: str, tmp_path: Path, parsed: Counter[str]) -> None:
    checkpoint = Checkpoint.open(MADE[name](tmp_path / "model"))
    make_plan(checkpoint)
    assert parsed["Lfm2Config"] == 1
    assert set(parsed.values()) == {1}, parsed
    if has_projector(checkpoint):
        parsed.clear()
        make_plan(checkpoint, projector=True)
        assert set(parsed.values()) == {1}, parsed
        assert "Lfm2Config" not in parsed


@pytest.mark.parametrize("name", ["plain", "embedding-and-head", "packed-experts"])
def test_nor_with_an_adapter(name: str, tmp_path: Path, parsed: Counter[str]) -> None:
    case = adapters.CASES[name]
    checkpoint = Checkpoint.open(adapters.make_base(case, tmp_path / "base"))
    make_plan(checkpoint, adapter=Adapter.open(adapters.make_adapter(case, tmp_path / "tune")))
    assert parsed["Lfm2Config"] == 1
    assert set(parsed.values()) == {1}, parsed


@pytest.mark.parametrize("name", MADE)
def test_the_config_alone_gives_the_tensors(name: str, tmp_path: Path) -> None:
    """But for a dense layer beside the checkpoint, whose width no config states."""
    folder = MADE[name](tmp_path / "model")
    plan = make_plan(Checkpoint.open(folder))
    architecture, tensors = base_tensors(Checkpoint.config_only(folder))
    assert architecture == plan.metadata["general.architecture"].value
    there = [t for t in plan.tensors if name != "colbert" or t.name != "dense_2.weight"]
    assert [(t.name, t.shape) for t in tensors] == [(t.name, t.shape) for t in there]


def test_experts_are_counted_under_both_names(tmp_path: Path) -> None:
    case = adapters.CASES["packed-experts"]
    config = dict(Checkpoint.open(adapters.make_base(case, tmp_path / "base")).config)
    adapter = Adapter.open(adapters.make_adapter(case, tmp_path / "tune"))
    named = find_deltas(config, adapter)
    config["num_local_experts"] = config.pop("num_experts")
    assert find_deltas(config, adapter).keys() == named.keys()
