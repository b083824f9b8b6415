"""The examples in the words are run as they stand."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import convert
from tests.making.models import tiny_gguf
from tests.making.multimodal import image, png
from tests.making.retrieval_checkpoints import CASES, make_retrieval
from tests.making.sounds import sound, wav

PAGE = Path(__file__).parents[2] / "examples" / "running" / "README.md"
PYTHON = re.compile(r"^## (.+?)$|^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    title = ""
    for match in PYTHON.finditer(PAGE.read_text("utf-8")):
        title = match[1] or title
        if match[2]:
            found.append((title, match[2]))
    return found


def test_all_are_found() -> None:
    titles = {title for title, _ in examples()}
    assert titles == {
        "Chat", "Streaming", "Tools", "Many at once", "Async", "Embeddings", "Images and sound",
        "LoRA adapters", "Devices",
    }  # fmt: skip


@pytest.fixture(scope="module")
def names(
    vision: tuple[Path, Path],
    audio: tuple[Path, Path],
    adapted: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What the page calls its files."""
    picture = tmp_path_factory.mktemp("picture") / "picture.png"
    picture.write_bytes(png(image()))
    speech = picture.with_name("speech.wav")
    speech.write_bytes(wav(sound()))
    folder = tmp_path_factory.mktemp("retrieval")
    retrieval = {
        name: convert(make_retrieval(CASES[name], folder / name), folder, "Q8_0", jobs=1)
        for name in ("LFM2.5-Embedding-350M", "LFM2.5-ColBERT-350M")
    }
    embedding, colbert = (made.files[0].path for made in retrieval.values())
    return {
        "MODEL": os.fspath(tiny_gguf()), "EMBEDDING_MODEL": embedding, "COLBERT_MODEL": colbert,
        "VISION_MODEL": vision[0], "MMPROJ": vision[1], "PICTURE": picture,
        "AUDIO_MODEL": audio[0], "AUDIO_MMPROJ": audio[1], "SOUND": speech,
        "BASE": adapted["base"], "FORMAL": adapted["a"], "BRIEF": adapted["b"],
    }  # fmt: skip


@pytest.mark.parametrize(("title", "code"), examples(), ids=lambda value: value[:12])
def test_an_example(
    title: str, code: str, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(code, title, "exec"), {**names, "__name__": "example"})
    assert capsys.readouterr().out or title == "Tools"
