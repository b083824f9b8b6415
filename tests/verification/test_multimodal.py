"""The text models of vision and audio checkpoints are verified as any other."""

from __future__ import annotations

from pathlib import Path

import pytest

import lfm2gguf
from lfm2gguf.errors import GGUFError
from lfm2gguf.verification import Engine, Material
from tests.making.multimodal import CASES, make_multimodal
from tests.verification.test_command import start

MATERIAL = Material(chunks=1, cache=False)
TEXTS = [name for name, case in CASES.items() if "projector" in case.parts]


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_model_is_verified(name: str, tmp_path: Path) -> None:
    source = make_multimodal(CASES[name], tmp_path / name)
    file = lfm2gguf.convert(source, tmp_path / "f.gguf", "F32", jobs=1).files[0].path
    result = lfm2gguf.verify(file, source, material=MATERIAL, engine=Engine("numpy"))
    assert result.passed, result.failures
    assert result.figures.kld.value < 1e-6


def test_another_text_model_is_not(tmp_path: Path) -> None:
    one, other = (make_multimodal(CASES[name], tmp_path / name) for name in TEXTS[:2])
    file = lfm2gguf.convert(one, tmp_path / "f.gguf", "F32", jobs=1).files[0].path
    with pytest.raises(GGUFError, match="cannot be judged against"):
        lfm2gguf.verify(file, other, material=MATERIAL, engine=Engine("numpy"))


def test_what_cannot_be_verified_is_said_before_anything_is_written(tmp_path: Path) -> None:
    source, target = (
        make_multimodal(CASES["audio_detokenizer"], tmp_path / "d"),
        tmp_path / "f.gguf",
    )
    done = start("convert", source, "-t", "F32", "-o", target, "--verify")
    assert done.returncode == 2
    assert "does not predict text" in done.stderr
    assert not target.exists()
