"""That drift is found where there is some (the run against another llama.cpp is weekly's)."""

from __future__ import annotations

from pathlib import Path

from lfm2gguf.lfm2 import ARCHITECTURES
from tests.golden.drift import differences, unknown_architectures


def test_a_new_architecture_is_named(tmp_path: Path) -> None:
    table = tmp_path / "conversion" / "__init__.py"
    table.parent.mkdir()
    known = ", ".join(f'"{name}": "lfm2"' for name in ARCHITECTURES)
    table.write_text(f'TEXT = {{{known}, "LlamaForCausalLM": "llama"}}')
    assert not unknown_architectures(tmp_path)
    table.write_text(f'TEXT = {{{known}, "Lfm4NewThing": "lfm4"}}')
    assert unknown_architectures(tmp_path) == {"Lfm4NewThing"}


def test_differences_say_where() -> None:
    was = {"metadata": {"a": 1, "b": 2}, "types": ["F32"]}
    assert not list(differences(was, was, "case"))
    now = {"metadata": {"a": 1, "c": 3}, "types": ["F16"]}
    assert list(differences(was, now, "case")) == [
        "case: metadata: b: was 2, is None",
        "case: metadata: c: was None, is 3",
        "case: types: was ['F32'], is ['F16']",
    ]
    swapped = {"types": ["F32"], "metadata": was["metadata"]}
    assert list(differences(was, swapped, "case")) == ["case: the order is another"]
