"""Other members of the family: calibrated, nearer to their checkpoints, and run by llama.cpp."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf.calibration import Calibrated, calibrate
from lfm2gguf.calibration.judge import Measure
from lfm2gguf.errors import OptionError
from lfm2gguf.gguf_file import GGUFFile
from tests.making import llama
from tests.making.adapters import CASES as ADAPTERS
from tests.making.adapters import make_adapter, make_base
from tests.making.checkpoints import MOE, Case, make
from tests.making.multimodal import CASES as MULTIMODAL
from tests.making.multimodal import make_multimodal
from tests.making.retrieval_checkpoints import CASES as RETRIEVAL
from tests.making.retrieval_checkpoints import SEQUENCES, make_retrieval
from tests.making.retrieval_example import KINDS, make_example

TEXT = Path(__file__).parents[2] / "examples" / "fidelity" / "README.md"


def calibrated(source: Path, folder: Path, type: str = "Q4_0", **more: Any) -> Calibrated:
    return calibrate(source, folder / "a.gguf", type, texts=[TEXT], ctx=64, chunks=24, **more)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colbert", "cls"])
def test_a_retrieval_models_vectors_are_nearer(kind: str, tmp_path: Path) -> None:
    """As the reference computes them, and as llama.cpp does, of sequences not calibrated on."""
    source = make_example(KINDS[kind], tmp_path / "LFM2-Retrieval")
    made = calibrated(source, tmp_path)
    assert made.judgement.measure is Measure.COSINE
    assert made.judgement.calibrated < 0.7 * made.judgement.plain
    assert made.to_json()["cosine_distance"] == made.judgement.calibrated
    assert not made.few_tokens
    pytest.importorskip("llama_cpp")
    from lfm2gguf import convert

    rng = np.random.default_rng(0)
    ids = [[1, *map(int, rng.integers(10, 1000, 40))] for _ in range(6)]
    vectors = {}
    for type in ("F32", "Q4_0"):
        vectors[type] = llama.embed(convert(source, tmp_path / type, type).files[0].path, ids)
    vectors["ours"] = llama.embed(tmp_path / "a.gguf", ids)
    plain, ours = (distance(vectors["F32"], vectors[name]) for name in ("Q4_0", "ours"))
    assert ours < 0.9 * plain


def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    found = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.concatenate, (a, b))]
    return float(1 - (found[0] * found[1]).sum(axis=1).mean())


def test_a_retrieval_model_answers_no_conversations(tmp_path: Path) -> None:
    source = make_retrieval(RETRIEVAL["LFM2-ColBERT-350M"], tmp_path / "LFM2-ColBERT")
    with pytest.raises(OptionError, match="is a retrieval model"):
        calibrate(source, tmp_path / "a.gguf", chat=tmp_path / "chat.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LFM2-ColBERT-350M", "LFM2-Last-rows-of-32"])
def test_dense_layers_and_poolings(name: str, tmp_path: Path) -> None:
    made = calibrated(make_retrieval(RETRIEVAL[name], tmp_path / "LFM2-Retrieval"), tmp_path)
    assert made.judgement.calibrated <= made.judgement.plain
    pytest.importorskip("llama_cpp")
    assert all(np.isfinite(v).all() for v in llama.embed(tmp_path / "a.gguf", SEQUENCES))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LFM2-VL-450M", "LFM2.5-Audio-1.5B"])
def test_the_text_model_of_media_members(name: str, tmp_path: Path) -> None:
    made = calibrated(make_multimodal(MULTIMODAL[name], tmp_path / name), tmp_path)
    check(made, tmp_path / "a.gguf")


@pytest.mark.slow
def test_an_adapter_is_merged_first(tmp_path: Path) -> None:
    case = ADAPTERS["plain"]
    source = make_base(case, tmp_path / "LFM2-Small")
    adapter = make_adapter(case, tmp_path / "adapter")
    made = calibrated(source, tmp_path, lora=adapter)
    check(made, tmp_path / "a.gguf")
    merged = tmp_path / "a.gguf"
    content = merged.read_bytes()
    calibrated(source, tmp_path, overwrite=True)
    assert content != merged.read_bytes()


@pytest.mark.slow
def test_experts_that_few_tokens_reach_are_named(tmp_path: Path) -> None:
    """They are rounded in part for what their layer sees, and the file is none the worse."""
    source = make(Case(MOE, dtype="F32"), tmp_path / "LFM2-Moe")
    made = calibrate(source, tmp_path / "a.gguf", "Q4_0", texts=[TEXT], ctx=32, chunks=8)
    check(made, tmp_path / "a.gguf")
    assert any(", expert " in name for name in made.few_tokens)
    assert made.to_json()["few_tokens"] == list(made.few_tokens)


def check(made: Calibrated, path: Path) -> None:
    """Nearer to the checkpoint or as near, and run by llama.cpp."""
    assert made.judgement.measure is Measure.KLD
    assert math.isfinite(made.judgement.calibrated)
    assert made.judgement.calibrated <= made.judgement.plain
    assert str(GGUFFile.open(path).get("lfm2gguf.calibration.blas"))
    pytest.importorskip("llama_cpp")
    assert np.isfinite(llama.logits(path, [1, 20, 33, 47])).all()
