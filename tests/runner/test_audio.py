"""What llama.cpp computes with converted audio models, against liquid-audio's own code.

golden/make_audio_embeddings.py made the expected values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import convert, verify
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.llamacpp import Chunk, Context, Model
from lfm2gguf.verification import Material
from tests.conversion.test_parity import ROOT
from tests.making.multimodal import Shapes, make_multimodal
from tests.making.sounds import AUDIO_CASE, DETOKENIZER_CASE, FRAMES, codes, sound

mtmd = pytest.importorskip("tests.making.mtmd", reason="llama-cpp-python is not installed")

EXPECTED = np.load(ROOT / "tests/golden/audio_embeddings.npz")
GOLDEN, SPECTRA = EXPECTED["embeddings"], EXPECTED["spectra"]
# Root mean square of the differences, of that of the embeddings: three times what was seen
# (F32 1.6e-4, F16 5.0e-4, BF16 3.4e-3, Q8_0 1.2e-2). The least fault below makes 1.7e-2.
CLOSE = {"F32": 5e-4, "F16": 1.5e-3, "BF16": 1e-2, "Q8_0": 4e-2}
Error = Callable[[Path, str], float]


@pytest.fixture(scope="module")
def error(tmp_path_factory: pytest.TempPathFactory) -> Error:
    """How far a checkpoint's projector of a type is from the expected embeddings."""
    source = make_multimodal(AUDIO_CASE, tmp_path_factory.mktemp("audio") / "LFM2.5-Audio-Run")
    text = convert(source, source, "F32", jobs=1).files[0].path

    def measure(checkpoint: Path, type: str) -> float:
        projector = convert(checkpoint, checkpoint, type, projector=True, jobs=1).files[0].path
        found = mtmd.audio_embeddings(text, projector, sound())
        assert found.shape == GOLDEN.shape
        return float(np.sqrt(np.square(found - GOLDEN).mean() / np.square(GOLDEN).mean()))

    return measure


@pytest.mark.parametrize("type", CLOSE)
def test_sound_embeddings_are_those_of_liquid_audio(
    error: Error, tmp_path: Path, type: str
) -> None:
    assert error(make_multimodal(AUDIO_CASE, tmp_path / "LFM2.5-Audio-Run"), type) < CLOSE[type]


def test_the_embeddings_tell_something() -> None:
    """They differ from frame to frame by much more than is let pass."""
    assert GOLDEN.std(axis=0).mean() > 100 * CLOSE["F32"] * np.sqrt(np.square(GOLDEN).mean())


# Of the tensors of a block these two matter least, and most; all others were seen to lie between.
# But for attn_k.bias, which adds the same to all scores of a query: softmax does not see it.
SWAPPED = {"self_attn.pos_bias_v": 30, "self_attn.linear_v.weight": 900}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWAPPED)
def test_a_tensor_of_another_layer_is_seen(error: Error, tmp_path: Path, name: str) -> None:
    case = replace(AUDIO_CASE, shapes=_swapped(AUDIO_CASE.shapes, name))
    found = error(make_multimodal(case, tmp_path / "LFM2.5-Audio-Run"), "F32")
    assert found > SWAPPED[name] * CLOSE["F32"]


def _swapped(shapes: Shapes, name: str) -> Shapes:
    """The same names, of which two get each other's values: these go by the place."""
    one, other = f"conformer.layers.0.{name}", f"conformer.layers.1.{name}"
    names = {one: other, other: one}
    return {names.get(key, key): shape for key, shape in shapes.items()}


def test_the_reference_of_a_verification_is_the_text_model(tmp_path: Path) -> None:
    source = make_multimodal(AUDIO_CASE, tmp_path / "LFM2.5-Audio-Run")
    files = [convert(source, tmp_path, type, jobs=1).files[0].path for type in ("Q8_0", "F32")]
    for reference in (source, files[1]):
        assert verify(files[0], reference, material=Material(chunks=1, ctx=16)).figures


@pytest.mark.slow
@pytest.mark.parametrize("window", [30, 20])
def test_spectra_of_the_detokenizer_are_those_of_liquid_audio(tmp_path: Path, window: int) -> None:
    """Codes embedded and spread here, as it does; with another window the later frames differ."""
    config = {**DETOKENIZER_CASE.config, "sliding_window": window}
    source = make_multimodal(
        replace(DETOKENIZER_CASE, config=config), tmp_path / "audio_detokenizer"
    )
    file = convert(source, tmp_path, "F32", jobs=1).files[0].path
    table = Checkpoint.open(source).read("emb.emb.weight").reshape(len(codes()), 2048, -1)
    embedded = np.mean([rows[chosen] for rows, chosen in zip(table, codes(), strict=True)], axis=0)
    rows = np.repeat(embedded, FRAMES, axis=0)
    with Model(file) as model, Context(model, n_ctx=512, threads=1, embeddings=True) as context:
        context.decode([Chunk(0, 0, [-1] * len(rows), rows=rows, outputs=len(rows))])
        found = context.embeddings()[:, ::16].copy()
    assert found.shape == SPECTRA.shape
    errors = np.square(found - SPECTRA).mean(axis=1) / np.square(SPECTRA).mean()
    assert np.sqrt(errors[:window]).max() < 1e-3
    assert (np.sqrt(errors[window:]).max() < 1e-3) == (window == 30)
