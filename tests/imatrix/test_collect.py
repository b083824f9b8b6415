"""Our statistic beside what llama.cpp's own graph sees on the same tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import convert
from lfm2gguf.calibration import calibration_material, collect_imatrix
from lfm2gguf.errors import OptionError
from lfm2gguf.verification import open_reference
from tests.making.checkpoints import MOE, Case, make
from tests.making.llama_inputs import sums_of_squares
from tests.making.models import EXAMPLE

CTX = 64


def compare(source: Path, folder: Path, text: Path) -> None:
    file = convert(source, folder / "m.gguf", "F32").files[0].path
    ours = collect_imatrix(source, [text], ctx=CTX, chunks=4)
    model = open_reference(source)
    material = calibration_material(model, [text], ctx=CTX, chunks=4)
    theirs = sums_of_squares(file, [ids.tolist() for ids in material.sequences])
    assert ours.entries.keys() == theirs.keys()
    assert ours.chunk_count == 4
    for name, (sums, counts) in theirs.items():
        assert np.array_equal(ours.entries[name].counts, counts), name
        np.testing.assert_allclose(
            ours.entries[name].sums, sums, rtol=2e-3, atol=1e-4 * sums.max(), err_msg=name
        )


def test_the_example_model(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 60)
    compare(EXAMPLE, tmp_path, text)


def test_experts_by_the_tokens_that_take_them(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    source = make(Case(MOE, dtype="F32"), tmp_path / "LFM2-Moe")
    text = tmp_path / "text.txt"
    text.write_text("abc de fgh. " * 200)
    compare(source, tmp_path, text)


def test_the_bundled_mixture_needs_no_file() -> None:
    material = calibration_material(open_reference(EXAMPLE), chunks=10, ctx=128)
    assert len(material.sequences) == 10
    assert [name.rpartition(": ")[2] for name in material.names] == [
        "Python's documentation", "Python's library", "conversations",
    ]  # fmt: skip
    kept, held_out = material.split(5)
    assert (len(kept.sequences), len(held_out.sequences)) == (8, 2)


def test_texts_that_are_too_short(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Hello")
    with pytest.raises(OptionError, match=r"short\.txt: is less than one chunk of 512 tokens"):
        collect_imatrix(EXAMPLE, [tmp_path / "short.txt"])
