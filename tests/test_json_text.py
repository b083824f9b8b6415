"""JSON that people bring is parsed in one place, which refuses what nests too deep to walk."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from lfm2gguf import convert, diagnose
from lfm2gguf.bench import read_reports
from lfm2gguf.chat.template import as_messages
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import CheckpointError, OptionError
from lfm2gguf.json_text import DEEPEST, parse_json
from tests.making.checkpoints import write_raw_safetensors
from tests.making.imports import MODULES

# What json.loads may still read: texts of the package's own, and an installer's note.
OWN = {
    "lfm2gguf.bench.workloads", "lfm2gguf.calibration.material", "lfm2gguf.install",
    "lfm2gguf.llamacpp.converter", "lfm2gguf.llamacpp.grammar", "lfm2gguf.loadable.child",
    "lfm2gguf.server.messages_api.answer",
}  # fmt: skip


def deep(levels: int, objects: bool = False) -> str:
    first, last = ('{"a":', "}") if objects else ("[", "]")
    return first * levels + "0" + last * levels


def test_there_is_one_place() -> None:
    reading = {
        module.name
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in ("load", "loads")
        if isinstance(node.value, ast.Name) and node.value.id == "json"
    }
    assert reading == OWN | {"lfm2gguf.json_text"}


@pytest.mark.parametrize("objects", [False, True])
def test_as_deep_as_it_may_be(objects: bool) -> None:
    value = parse_json(deep(DEEPEST, objects))
    assert json.loads(deep(DEEPEST, objects)) == value


@pytest.mark.parametrize("objects", [False, True])
@pytest.mark.parametrize("levels", [DEEPEST + 1, 900, 3000, 100_000])
def test_deeper_is_no_recursion(levels: int, objects: bool) -> None:
    with pytest.raises(ValueError, match=f"nests deeper than {DEEPEST}"):
        parse_json(deep(levels, objects))


def test_pairs_and_bytes() -> None:
    assert parse_json(b'{"a": {"b": 1}}', pairs=list) == [("a", [("b", 1)])]
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(b'"\xff"')


@pytest.mark.parametrize("levels", [DEEPEST + 1, 980, 100_000])
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_every_file_of_a_checkpoint(
    name: str, levels: int, checkpoint: Path, tmp_path: Path
) -> None:
    """At any depth: also at one where Python itself still reads, and what walks it does not."""
    (checkpoint / name).write_text('{"x": ' + deep(levels - 1) + "}")
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read as JSON .*nests deeper"):
        convert(checkpoint, tmp_path / "a.gguf", jobs=1)
    assert not (tmp_path / "a.gguf").exists()
    try:
        assert not diagnose(checkpoint).healthy
    except CheckpointError:
        assert name == "config.json"


def test_a_header_of_weights(checkpoint: Path) -> None:
    write_raw_safetensors(checkpoint / "model.safetensors", deep(980, True).encode(), b"")
    with pytest.raises(CheckpointError, match="nests deeper"):
        Checkpoint.open(checkpoint)


def test_other_files(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    report.write_text(deep(980))
    with pytest.raises(OptionError, match="not a report"):
        read_reports([report])


def test_arguments_of_a_call_stay_a_text() -> None:
    call = {"function": {"name": "f", "arguments": deep(980, True)}}
    messages = as_messages([{"role": "assistant", "content": "", "tool_calls": [call]}])
    assert messages[0]["tool_calls"] == [call]
