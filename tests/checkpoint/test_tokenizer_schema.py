"""What tokenizer.json says and llama.cpp does not do.

Where a note speaks of other tokens, the tokens of Hugging Face's own library with the setting and
without it are the witness.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from lfm2gguf.checkpoint import Checkpoint, Tokenizer
from lfm2gguf.errors import CheckpointError, UnsupportedError
from lfm2gguf.lfm2 import make_plan
from lfm2gguf.verification.material import models
from tests.making.checkpoints import CASES, make

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(CASES["LFM2-rows-of-16"], tmp_path / "model")


def changed(folder: Path, change: Change) -> Path:
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    return file


def normalizer(kind: str, **about: Any) -> Change:
    return lambda data: data.update(normalizer={"type": kind, **about})


def model(**about: Any) -> Change:
    return lambda data: data["model"].update(about)


def first_added(key: str) -> Change:
    return lambda data: data["added_tokens"][6].update({key: True})


NOTED: dict[str, tuple[Change, str]] = {
    "NFC": (normalizer("NFC"), "e\u0301"),
    "NFD": (normalizer("NFD"), "\u00e9"),
    "NFKC": (normalizer("NFKC"), "\ufb01"),
    "Strip": (normalizer("Strip", strip_left=True, strip_right=True), " the"),
    "Replace": (normalizer("Replace", pattern={"String": "a"}, content="e"), "a"),
    "dropout": (model(dropout=1.0), "the"),
    "lstrip": (first_added("lstrip"), "a <|im_start|>"),
    "rstrip": (first_added("rstrip"), "<|im_start|> a"),
    "single_word": (first_added("single_word"), "a<|im_start|>a"),
}
REFUSED: dict[str, tuple[Change, str]] = {
    "Lowercase": (normalizer("Lowercase"), "The"),
    "Prepend": (normalizer("Prepend", prepend="e"), "the"),
    "end_of_word_suffix": (model(end_of_word_suffix="e"), "th h"),
}


def ids(file: Path, text: str) -> list[int]:
    found: list[int] = tokenizers.Tokenizer.from_file(str(file)).encode(text).ids
    return found


@pytest.mark.parametrize("name", NOTED)
def test_what_can_change_tokens_is_told(folder: Path, name: str) -> None:
    change, text = NOTED[name]
    assert Tokenizer.load(folder).notes == ()
    before = ids(folder / "tokenizer.json", text)
    file = changed(folder, change)
    assert ids(file, text) != before
    (note,) = Tokenizer.load(folder).notes
    assert name in note


@pytest.mark.parametrize("name", REFUSED)
def test_what_always_does_is_refused(folder: Path, name: str) -> None:
    changed(folder, REFUSED[name][0])
    with pytest.raises(UnsupportedError, match=name):
        Tokenizer.load(folder)


def test_a_sequence_is_looked_into(folder: Path) -> None:
    parts = [{"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}]
    changed(folder, normalizer("Sequence", normalizers=parts))
    assert [note.split("normalizer ")[1].split()[0] for note in Tokenizer.load(folder).notes] == [
        "NFC",
        "NFKC",
    ]


@pytest.mark.parametrize(
    ("single", "told"),
    [("BA", False), ("BAE", False), ("A", False), ("BBA", True), ("AEE", True), ("AA", True)],
)
def test_templates_of_special_tokens(folder: Path, single: str, told: bool) -> None:
    token = {"SpecialToken": {"id": "<|startoftext|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    parts = [text if part == "A" else token for part in single]
    processor = {"type": "TemplateProcessing", "single": parts, "pair": [], "special_tokens": {}}
    changed(folder, lambda data: data.update(post_processor=processor))
    assert bool(Tokenizer.load(folder).notes) is told


def test_truncation_and_padding_are_nothing(folder: Path) -> None:
    text = "the a er in " * 50
    file = folder / "tokenizer.json"
    whole = ids(file, text)
    cut = tokenizers.Tokenizer.from_file(str(file))
    cut.enable_truncation(8)
    cut.enable_padding(length=2000)
    cut.save(str(file))
    assert ids(file, text) != whole
    assert Tokenizer.load(folder).notes == ()
    assert models.load_tokenizer(file).encode(text).ids == whole


@pytest.mark.parametrize("damage", [{"normalizer": 3}, {"added_tokens": [1]}])
def test_damaged(folder: Path, damage: dict[str, Any]) -> None:
    changed(folder, lambda data: data.update(damage))
    with pytest.raises(CheckpointError, match="damaged"):
        Tokenizer.load(folder)


def test_the_file_is_parsed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By this package; gguf's SpecialVocab takes a folder, and parses it a second time."""
    file = changed(folder, normalizer("NFC"))
    loads, parsed = json.loads, []

    def counted(text: Any, **how: Any) -> Any:
        parsed.append(text)
        return loads(text, **how)

    monkeypatch.setattr(json, "loads", counted)
    plan = make_plan(Checkpoint.open(folder))
    assert parsed.count(file.read_text()) == 2
    assert sum("its normalizer NFC" in note for note in plan.notes) == 1
