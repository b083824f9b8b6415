"""The types that have limits for text models alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import lfm2gguf
from lfm2gguf.calibration import collect_imatrix
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType
from lfm2gguf.imatrix import ImportanceMatrix
from lfm2gguf.verification import Limits, Session, text_limits
from lfm2gguf.verification.limits import MORE_TEXT_LIMITS
from tests.making.lanes import WEEKLY
from tests.making.verdicts import judged


def test_coarser_types_have_wider_limits() -> None:
    order = ["Q5_1", "Q5_0", "IQ4_NL", "IQ4_XS", "Q4_1", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"]
    grids = ["IQ4_XS", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"]
    for names in (order, grids):
        for finer, coarser in itertools.pairwise(MORE_TEXT_LIMITS[name] for name in names):
            assert finer.max_kld <= coarser.max_kld
            assert finer.max_ppl_increase <= coarser.max_ppl_increase
            assert finer.min_top1 >= coarser.min_top1


def test_every_file_type_has_limits() -> None:
    assert text_limits().keys() == set(FileType.__members__)
    for name in FileType.__members__:
        assert Limits().of_similarity(name).min_overlap > 0


@pytest.fixture(scope="module")
def matrix(example: Path) -> ImportanceMatrix:
    return collect_imatrix(example, chunks=8)


# Types that search a grid take half a minute each to quantize.
TYPES = [
    pytest.param(type, marks=WEEKLY if type.startswith(("IQ1", "IQ2", "IQ3")) else pytest.mark.slow)
    for type in MORE_TEXT_LIMITS
]


@pytest.mark.parametrize("type", TYPES)
def test_a_correct_file_passes(
    type: str, session: Session, example: Path, tmp_path: Path, matrix: ImportanceMatrix
) -> None:
    target = tmp_path / "a.gguf"
    try:
        lfm2gguf.convert(example, target, type, jobs=1)
    except OptionError:  # it needs the matrix
        lfm2gguf.convert(example, target, Recipe(type, imatrix=matrix), jobs=1)
    result = judged(session, target, engine="numpy")
    assert result.passed, result.failures
    assert result.figures.kld.value < MORE_TEXT_LIMITS[type].max_kld / 1.3


@pytest.mark.slow
def test_another_files_weights_do_not(session: Session, example: Path, tmp_path: Path) -> None:
    """Q2_K under Q3_K_M's name is told by the text, whatever the weights' gate makes of it."""
    pattern = ["attn|ffn|shortconv=Q2_K"]
    recipe = Recipe("Q3_K_M", tensor_type=pattern)
    lfm2gguf.convert(example, tmp_path / "a.gguf", recipe, jobs=1)
    assert not judged(session, tmp_path / "a.gguf", engine="numpy").passed
