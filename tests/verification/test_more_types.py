"""The types that have limits for text models alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import lfm2gguf
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType
from lfm2gguf.verification import Limits, Session, text_limits
from lfm2gguf.verification.limits import MORE_TEXT_LIMITS
from tests.making.verdicts import judged


def test_coarser_types_have_wider_limits() -> None:
    rows = [limits for name, limits in text_limits().items() if name in MORE_TEXT_LIMITS]
    for finer, coarser in itertools.pairwise(rows):
        assert finer.max_kld <= coarser.max_kld
        assert finer.max_ppl_increase <= coarser.max_ppl_increase
        assert finer.min_top1 >= coarser.min_top1
    assert text_limits().keys() <= set(FileType.__members__)


def test_retrieval_models_have_none() -> None:
    assert Limits().of_text("Q3_K_M") == MORE_TEXT_LIMITS["Q3_K_M"]
    with pytest.raises(OptionError, match="no default limits for Q3_K_M"):
        Limits().of_similarity("Q3_K_M")


@pytest.mark.slow
@pytest.mark.parametrize("type", MORE_TEXT_LIMITS)
def test_a_correct_file_passes(type: str, session: Session, example: Path, tmp_path: Path) -> None:
    lfm2gguf.convert(example, tmp_path / "a.gguf", type, jobs=1)
    result = judged(session, tmp_path / "a.gguf", engine="numpy")
    assert result.passed, result.failures
    assert result.figures.kld.value < MORE_TEXT_LIMITS[type].max_kld / 1.4


@pytest.mark.slow
def test_another_files_weights_do_not(session: Session, example: Path, tmp_path: Path) -> None:
    """Q2_K under Q3_K_M's name is told by the text, whatever the weights' gate makes of it."""
    pattern = ["attn|ffn|shortconv=Q2_K"]
    recipe = lfm2gguf.conversion.Recipe("Q3_K_M", tensor_type=pattern)
    lfm2gguf.convert(example, tmp_path / "a.gguf", recipe, jobs=1)
    assert not judged(session, tmp_path / "a.gguf", engine="numpy").passed
