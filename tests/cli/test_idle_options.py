"""Options that cannot act on what a command was given: refused, never passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import plan
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import OptionError
from lfm2gguf.imatrix import Entry, ImportanceMatrix, write_imatrix
from lfm2gguf.verification import open_reference
from tests.cli.command import refusal, run
from tests.conftest import EXAMPLE

NOWHERE = "http://127.0.0.1:9"

IDLE = {
    # what chooses within a Hub repository, beside what is here
    "verify {gguf} -r {folder} --type Q8_0": "type",
    "verify {gguf} -r {folder} --revision main": "revision",
    "verify {gguf} -r {gguf} --revision main": "revision",
    "inspect {gguf} --type Q4_K_M": "type",
    "inspect {folder} --revision main": "revision",
    "doctor {gguf} {folder} --type Q8_0": "type",
    "doctor {folder} --revision main": "revision",
    "run {gguf} -p hi --type Q8_0": "type",
    "serve {gguf} --type Q8_0": "type",
    "convert {folder} --revision main": "revision",
    "calibrate {folder} --revision main": "revision",
    "imatrix {folder} -o {out}.gguf --revision main": "revision",
    "imatrix {gguf} -o {out}.gguf --revision main": "revision",
    "publish {folder} --to a/b --no-upload --revision main": "revision",
    # of another engine, source or suite
    "verify {gguf} -r {folder} --engine numpy --device cpu": "device",
    "verify {gguf} -r {folder} --engine numpy --threads 1": "threads",
    f"bench --endpoint {NOWHERE} --lookup 4": "lookup",
    f"bench --endpoint {NOWHERE} --gpu-layers 4": "gpu_layers",
    f"bench --endpoint {NOWHERE} --no-probes --threads 1": "threads",
    f"bench --endpoint {NOWHERE} --no-probes --device cpu": "device",
    "bench {gguf} --model x": "model",
    "bench {gguf} --api-key x": "api_key",
    "bench {gguf} --pid 1": "pid",
    "bench {gguf} --suite depth --workloads chat": "workloads",
    "bench {gguf} --suite depth --concurrency 2": "concurrency",
    "bench {gguf} --suite workloads --contexts 1k": "contexts",
    "bench published --compare --runs 2": "runs",
    "bench published --compare --warmups 1": "warmups",
    "bench published --compare --device cpu": "device",
    # of texts, where there are conversations alone
    "verify {gguf} -r {folder} --chat {chat} --chunks 2": "chunks",
    "verify {gguf} -r {folder} --chat {chat} --ctx 64": "ctx",
    "calibrate {folder} --chat {chat} --chunks 2": "chunks",
    "imatrix {folder} -o {out}.gguf --chat {chat} --chunks 2": "chunks",
    # of what is not made
    "convert {folder} -t BF16 -o {out}.gguf --imatrix {matrix}": "imatrix",
    "convert {folder} -t BF16 -o {out}.gguf --imatrix auto": "imatrix",
    "convert {folder} -t F16 -o {out}.gguf --calibrate": "calibrate",
    "quantize {gguf} -t F16 -o {out}.gguf --imatrix {matrix}": "a file of the type F16",
    "convert {folder} -o {out}.gguf --imatrix {matrix} --include-weights ffn_dwon": "include",
    "convert {folder} -o {out}.gguf --imatrix {matrix} --exclude-weights ffn_dwon": "exclude",
    "imatrix --in-file {matrix} --ctx 64 -o {out}.gguf": "ctx",
    "publish {folder} --to a/b --no-upload --private": "private",
    "publish {folder} --to a/b --no-upload -t BF16 --calibrate": "calibrate",
    "publish {folder} --to a/b --no-upload --no-imatrix --calibration-text {text}": "calibration",
}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory, wide: Path, bf16_gguf: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("idle")
    text = folder / "text.txt"
    text.write_text("A text.")
    entry = Entry(np.ones((1, 512), np.float32), np.array([64]))
    matrix = folder / "matrix.gguf"
    write_imatrix(ImportanceMatrix({"blk.0.ffn_down.weight": entry}, ("x",), 1, 64), matrix)
    chat = folder / "chat.jsonl"
    chat.write_text('{"prompt": "Hi", "completion": "Hello"}')
    return {"chat": chat, "gguf": bf16_gguf, "folder": wide, "out": folder / "out", "text": text,
            "matrix": matrix}  # fmt: skip


@pytest.mark.parametrize("command", IDLE)
def test_what_has_no_effect_is_refused(
    command: str, names: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word.format(**names) for word in command.split()]
    said = refusal(*words, within=names["out"].parent)
    assert IDLE[command] in said
    assert "leave" in said or "give" in said or "inspect" in said


def test_they_are_refused_from_python() -> None:
    with pytest.raises(OptionError, match="revision"):
        plan(EXAMPLE, revision="main")
    with pytest.raises(OptionError, match="revision"):
        open_reference(EXAMPLE, "main")


def test_a_tied_output_cannot_be_left(small: Path) -> None:
    made = plan(small, type=Recipe("Q8_0", leave_output_tensor=True))
    assert "there is no output.weight" in made.notes[-1]


def test_an_answer_as_json_needs_a_question(
    bf16_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert "give -p" in refusal("run", bf16_gguf, "--json", within=tmp_path)


def test_the_keys_of_the_environment_are_for_endpoints_alone(
    bf16_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is set for other programs is not a key that was given."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert "unknown" in refusal("bench", bf16_gguf, "--suite", "x", within=tmp_path)


def test_chunks_of_a_legacy_matrix_are_counted_as_ctx_says(tmp_path: Path) -> None:
    """As ``merge``, of one file too."""
    entry = Entry(np.full((1, 4), 3, np.float32), np.array([2]))
    old, new = tmp_path / "a.dat", tmp_path / "b.gguf"
    write_imatrix(ImportanceMatrix({"blk.0.ffn_up.weight": entry}, ("x",), 2), old)
    done = run("imatrix", "--in-file", old, "--ctx", 64, "-o", new, "--json")
    assert done.code == 0, done
    assert '"chunk_size": 64' in done.out
