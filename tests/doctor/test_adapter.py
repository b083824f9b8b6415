"""What can be wrong with an adapter's GGUF, planted and found; and what llama.cpp makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfm2gguf import GGUFFile, convert, convert_lora, diagnose
from lfm2gguf.doctor import Severity
from lfm2gguf.gguf_file import Value, ValueType
from tests.doctor.operations import Change, f32, rewrite
from tests.doctor.test_against_llama_cpp import loaded
from tests.making.adapters import GGUF_CASES, base, make_adapter
from tests.making.checkpoints import make

CASE = GGUF_CASES[next(iter(GGUF_CASES))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its adapter; not to be changed."""
    folder = tmp_path_factory.mktemp("adapter")
    source, adapter = make(base(CASE), folder / "Base"), make_adapter(CASE, folder / "tune")
    model = convert(source, folder / "model.gguf", "F16", jobs=1).files[0].path
    return model, convert_lora(adapter, source, folder / "adapter.gguf", "F32").file.path


def planted(sound: Path) -> dict[str, tuple[Change, str]]:
    first = next(name for name in GGUFFile.open(sound).tensors if name.endswith(".lora_a"))
    second = f"{first[:-1]}b"
    columns = GGUFFile.open(sound).tensors[first].shape[-1]
    return {
        "no lora_b": (Change(names={second: None}), "has no lora_b"),
        "no lora_a": (Change(names={first: None}), "has no lora_a"),
        "another rank": (Change(tensors={first: f32([[*range(columns)]] * 31)}), "rank"),
        "a whole tensor": (Change(tensors={"x.weight": f32([[1, 2]])}), "not part of an adapter"),
        "another kind": (
            Change({"adapter.type": Value(ValueType.STRING, "control")}), "not 'lora'",
        ),
    }  # fmt: skip


def accepted(model: Path, adapter: Path) -> bool:
    with loaded(model) as (api, handle):
        return bool(api.llama_adapter_lora_init(handle, str(adapter).encode()))


def test_a_sound_adapter_is_healthy(files: tuple[Path, Path]) -> None:
    diagnosis = diagnose(files[1])
    assert diagnosis.findings == ()
    assert "an adapter for lfm2" in diagnosis.facts[0]
    assert accepted(*files)


@pytest.mark.parametrize(
    "name", ["no lora_b", "no lora_a", "another rank", "a whole tensor", "another kind"]
)
def test_finds_what_llama_cpp_refuses(name: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    model, sound = files
    change, words = planted(sound)[name]
    path = rewrite(sound, tmp_path / "changed.gguf", change)
    errors = [f for f in diagnose(path).findings if f.severity is Severity.ERROR]
    assert len(errors) == 1
    assert words in errors[0].what
    assert not accepted(model, path)
