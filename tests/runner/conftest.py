"""Small models of other kinds than the example, for whoever runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lfm2gguf import convert, convert_lora
from lfm2gguf.runner import Runner
from tests.making.adapters import CASES, base, make_adapter
from tests.making.checkpoints import make
from tests.making.models import tiny_gguf
from tests.making.multimodal import IMAGE_CASE
from tests.making.multimodal import make_multimodal as make_media
from tests.making.sounds import AUDIO_CASE


@pytest.fixture(scope="session")
def vision(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random LFM2-VL: the text model and the projector."""
    source = make_media(IMAGE_CASE, tmp_path_factory.mktemp("vl") / "LFM2-VL-Run")
    text = convert(source, source, "F32", jobs=1).files[0].path
    return text, convert(source, source, "F32", projector=True, jobs=1).files[0].path


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random LFM2-Audio: the text model and the projector."""
    source = make_media(AUDIO_CASE, tmp_path_factory.mktemp("audio") / "LFM2.5-Audio-Run")
    text = convert(source, source, "F32", jobs=1).files[0].path
    return text, convert(source, source, "F32", projector=True, jobs=1).files[0].path


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model, two adapters, and the model with each of them merged."""
    folder = tmp_path_factory.mktemp("adapters")
    case = CASES["plain"]
    source = make(base(case), folder / "base")
    found = {"base": convert(source, folder / "base.gguf", "F32", jobs=1).files[0].path}
    for name, alpha in (("a", 8), ("b", 24)):
        peft = make_adapter(case, folder / name, lora_alpha=alpha)
        merged = convert(source, folder / f"merged-{name}.gguf", "F32", lora=peft, jobs=1)
        found[f"merged-{name}"] = merged.files[0].path
        found[name] = convert_lora(peft, source, folder / f"{name}.gguf").file.path
    return found


@pytest.fixture(scope="module")
def lfm() -> Iterator[Runner]:
    with Runner(tiny_gguf(), device="cpu", threads=1) as runner:
        yield runner
