"""A calibrated file of the example model: the same types, run by llama.cpp, nearer to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lfm2gguf
from lfm2gguf.calibration import calibrate, calibrate_layers
from lfm2gguf.calibration.streams import Streams
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.reference import EMBEDDING, Reference, Steps
from lfm2gguf.verification import open_reference
from tests.making.checkpoints import MOE, Case, config, make
from tests.making.models import EXAMPLE


@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_streams_are_the_references_layers(kind: str, tmp_path: Path) -> None:
    """Nothing quantized: both streams end where the reference's own pass does."""
    case = Case(config() if kind == "dense" else MOE, dtype="F32")
    model = open_reference(make(case, tmp_path / "LFM2-Small"))
    rng = np.random.default_rng(1)
    sequences = [rng.integers(1, 255, n).astype(np.int32) for n in (40, 17, 64)]
    with Streams(model.weights, sequences, folder=tmp_path) as streams:
        streams.quantized[EMBEDDING] = model.weights.read(EMBEDDING)
        streams.begin()
        assert not streams.quantized  # half a gigabyte of LFM2-1.2B's
        for i in range(len(model.weights.config.layers)):
            for stage in streams.layer(i):
                tokens = sum(len(block.y) for block in stage.inputs)
                assert tokens == 121 or stage.layer is not None
        expected = Reference(model.weights).states(
            sequences, [np.arange(len(s)) for s in sequences]
        )
        for stream in ("x", "y"):
            found = np.concatenate([getattr(block, stream) for block in streams.states()])
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        exact = np.concatenate(list(streams.exact_states(121)))
        np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-4)


def test_experts_are_calibrated_one_by_one(tmp_path: Path) -> None:
    wider = {"hidden_size": 64, "moe_intermediate_size": 64, "intermediate_size": 96}
    model = open_reference(make(Case({**MOE, **wider}, dtype="F32"), tmp_path / "LFM2-Moe"))
    rng = np.random.default_rng(2)
    sequences = [rng.integers(1, 255, 64).astype(np.int32) for _ in range(4)]

    names = Steps(model.weights)
    types = {name: GGMLType.Q4_0 for i in range(len(model.weights.config.layers))
             for e in range(names.experts(i)) for name in names.ffn_names(i, e)}  # fmt: skip
    made = {t.name: t for t in calibrate_layers(model.forward, sequences, types)}
    assert made.keys() == types.keys()
    assert all(np.isfinite(t.rounded.values).all() for t in made.values())
    assert all(t.rounded.loss <= t.rounded.plain_loss for t in made.values())


@pytest.mark.slow
def test_the_example_model_is_nearer(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text(Path(EXAMPLE / "README.md").read_text("utf-8") * 20, "utf-8")
    made = calibrate(EXAMPLE, tmp_path / "a.gguf", "Q4_0", chunks=12, ctx=256)
    assert made.better
    assert made.judgement.calibrated < 0.8 * made.judgement.plain
    recipe = Recipe("Q4_0", calibrated=True)  # the types that an importance matrix gives
    plain = lfm2gguf.convert(EXAMPLE, tmp_path / "plain.gguf", recipe).files[0].path
    ours, theirs = GGUFFile.open(tmp_path / "a.gguf"), GGUFFile.open(plain)
    assert {n: t.type for n, t in ours.tensors.items()} == {
        n: t.type for n, t in theirs.tensors.items()
    }
    assert ours.get("lfm2gguf.calibration.tokens") == made.tokens
    pytest.importorskip("llama_cpp")
    with lfm2gguf.Runner(tmp_path / "a.gguf", device="cpu") as lfm:
        assert lfm.chat("Hello", max_tokens=4).text is not None


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Tensors of the workspace are taken as they are, and give the same file."""
    source = make(Case(config(), dtype="F32"), tmp_path / "LFM2-Small")
    text = tmp_path / "t.txt"
    text.write_text("abc def gh. " * 400)
    settings = {"texts": [text], "ctx": 32, "chunks": 16, "workspace": tmp_path / "work"}
    first = calibrate(source, tmp_path / "a.gguf", "Q4_0", jobs=1, **settings)
    finished = sorted((tmp_path / "work").rglob("*.bin"))
    assert finished
    for path in finished[len(finished) // 2 :]:
        path.unlink()
    calibrate(source, tmp_path / "b.gguf", "Q4_0", jobs=3, **settings)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert first.conversion.files[0].path == tmp_path / "a.gguf"


def test_too_few_chunks(tmp_path: Path) -> None:
    source = make(Case(config(), dtype="F32"), tmp_path / "LFM2-Small")
    (tmp_path / "t.txt").write_text("abc def gh. " * 40)
    with pytest.raises(OptionError, match="are too few; 8 or more are needed"):
        calibrate(source, tmp_path / "a.gguf", "Q4_0", texts=[tmp_path / "t.txt"], ctx=64)
    assert not (tmp_path / "a.gguf").exists()
