"""The boundary of the command line: one line for an error, whatever a file makes it say."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lfm2gguf.errors import GGUFError
from lfm2gguf.gguf_file import Value, ValueType
from lfm2gguf.sampling import default_options
from lfm2gguf_cli import main as entry
from tests.cli.command import COMMAND, run


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2Jx\x07", "\r\x9b2J", "\udcff\ud83d", "a\u202eb"])
def test_an_error_is_one_line_that_commands_nothing(checkpoint: Path, text: str) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["architectures"] = [f"x{text}y"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    done = run("convert", checkpoint, "-o", checkpoint / "f.gguf")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert done.err.strip().isprintable()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that is used")
@pytest.mark.parametrize("target", [(), ("-o", "a.gguf")])
def test_a_current_folder_that_was_deleted(
    target: tuple[str, ...], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [*COMMAND, "convert", str(checkpoint), "-t", "F16", *target]
    script = "rmdir ../gone && exec " + shlex.join(command)
    done = subprocess.run(script, shell=True, cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "lfm2gguf: the current folder is no longer there: change to another (cd), and try again\n"
    )


def test_letters_of_all_scripts_stay() -> None:
    assert entry.one_line("café 日本 \U0001f600 'a b'") == "café 日本 \U0001f600 'a b'"


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("a\nb"), MemoryError()])
def test_what_nobody_foresaw_is_a_line_and_no_failed_check(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(fails)
    monkeypatch.setattr(entry, "make_app", lambda arguments: app)
    done = run()
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "Traceback" not in done.err


def test_texts_that_are_not_utf8_are_printed(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["note"] = "\ud83d"
    (checkpoint / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [*COMMAND, "inspect", "--json", str(checkpoint)],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    json.loads(done.stdout)


@pytest.mark.parametrize("value", ["much", "", float("nan"), float("inf"), [1], -5.0, {}])
def test_sampling_of_a_file_is_looked_at(value: object) -> None:
    key = "general.sampling.penalty_repeat"
    metadata = {"general.architecture": "lfm2", key: value}
    with pytest.raises(GGUFError, match=r"sampling"):
        default_options(metadata)


@pytest.mark.parametrize("value", [254, "lm_head", [1], {"a": 1}, True])
def test_names_of_an_adapter_are_looked_at(tmp_path: Path, value: object) -> None:
    from lfm2gguf.checkpoint import Adapter
    from lfm2gguf.errors import CheckpointError
    from tests.making.adapters import CASES, make_adapter

    folder = make_adapter(CASES["plain"], tmp_path / "a", modules_to_save=value)
    with pytest.raises(CheckpointError, match="modules_to_save is"):
        Adapter.open(folder)


@pytest.mark.parametrize("pattern", [{"x": 1}, ["x"], 3, None])
def test_a_pre_tokenizer_is_looked_at(checkpoint: Path, pattern: object) -> None:
    file = checkpoint / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ],
    }
    file.write_text(json.dumps(tokenizer))
    done = run("convert", checkpoint, "-o", checkpoint / "f.gguf")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "pre-tokenizer" in done.err


@pytest.mark.parametrize("tokens", [[1, 2], ["a", 2], "abc", [["a"]]])
def test_a_vocabulary_of_other_things_is_none(tmp_path: Path, tokens: object) -> None:
    from lfm2gguf.doctor.subject import Subject

    metadata = {
        "tokenizer.ggml.tokens": Value(ValueType.ARRAY, tokens, ValueType.INT32),
        "tokenizer.ggml.token_type": Value(ValueType.ARRAY, ["x"], ValueType.STRING),
    }
    assert Subject(tmp_path, "gguf", metadata, {}, ()).tokens == []
