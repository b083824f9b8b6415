"""What the commands print, to a person, a pipe and a program."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import convert
from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile, TensorSpec, Value, ValueType, lay_out
from tests.cli.command import COMMAND, listing, run
from tests.doctor.operations import Change, rewrite
from tests.making.checkpoints import CASES, config, save, weights

NAME = "LFM2-rows-of-256"


def test_names_are_those_of_llama_cpps_convention(wide: Path, tmp_path: Path) -> None:
    """``<BaseName>-<SizeLabel>-<Version>-<Type>.gguf``, from the metadata that is written."""
    assert run("convert", wide, "-qo", tmp_path, "-t", "q8_0", "-t", "bf16").code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"LFM2-rows-of-1.3M-256-{type}.gguf" for type in ("Q8_0", "BF16")}


def test_the_default_is_q4_k_m_here(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("convert", wide)
    assert [path.name for path in tmp_path.iterdir()] == ["LFM2-rows-of-1.3M-256-Q4_K_M.gguf"]
    assert result.out.startswith("LFM2-rows-of-1.3M-256-Q4_K_M.gguf  Q4_K_M  ")
    assert "bits/weight" in result.out


def test_several_types_come_out_of_one_reading(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tile of the checkpoint is mapped once, however many types are asked for."""
    from lfm2gguf.conversion import Part

    read: list[str] = []
    stored = Part.stored

    def counted(part: Part, start: int, stop: int) -> Any:
        read.append(part.origin)
        return stored(part, start, stop)

    monkeypatch.setattr(Part, "stored", counted)
    types = ["F32", "Q8_0", "Q5_K_M", "Q4_0"]
    files = convert(wide, tmp_path, types, jobs=1).files
    assert [file.type for file in files] == types
    assert sorted(read) == sorted(Checkpoint.open(wide).tensors)


def test_quiet(small: Path, tmp_path: Path) -> None:
    result = run("convert", small, "-o", tmp_path, "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert len(list(tmp_path.iterdir())) == 1


def test_json_summary(small: Path, tmp_path: Path) -> None:
    result = run("convert", small, "-o", tmp_path, "--json", "-t", "Q8_0", "-t", "F16")
    summary = json.loads(result.out)
    assert [file["type"] for file in summary["files"]] == ["Q8_0", "F16"]
    for file in summary["files"]:
        written = GGUFFile.open(file["path"])
        assert file["bytes"] == written.path.stat().st_size
        assert file["weights"] == sum(x.size for x in weights(config()).values())
        assert file["bits_per_weight"] == pytest.approx(8 * file["bytes"] / file["weights"], 1e-4)
        assert file["seconds"] >= 0
        assert file["weights_per_second"] > 0
        assert sum(file["tensor_types"].values()) == len(written.tensors)


def test_progress_in_a_pipe_is_plain_lines(small: Path, tmp_path: Path) -> None:
    result = run("convert", small, "-o", tmp_path)
    *lines, _ = result.err.splitlines()
    assert 1 < len(lines) <= 11
    assert lines[-1].startswith("writing 100%  21/21 tensors")
    assert "\x1b" not in result.err + result.out
    assert "\r" not in result.err + result.out


def test_what_is_left_out_is_said(checkpoint: Path, tmp_path: Path) -> None:
    found = weights(config())
    found["lm_head.weight"] = found["model.embed_tokens.weight"]
    save(checkpoint, found)
    result = run("convert", checkpoint, "-o", tmp_path)
    assert result.err.startswith(
        "left out: lm_head.weight (it repeats the embedding, as the config says)"
    )
    result = run("convert", checkpoint, "-o", tmp_path, "--force", "--json")
    assert list(json.loads(result.out)["left_out"]) == ["lm_head.weight"]


def test_dry_run_reads_no_weight_and_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """The plan is complete before the weights: here they are a hole in a sparse file."""
    path = checkpoint / "model.safetensors"
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    with path.open("wb") as file:
        file.write(data[:end])
        file.truncate(len(data))
    before = listing(tmp_path)
    arguments = ["convert", checkpoint, "-o", tmp_path, "-t", "Q4_K_M", "-t", "F16", "--dry-run"]
    text, plan = run(*arguments).out, json.loads(run(*arguments, "--json").out)
    assert listing(tmp_path) == before
    path.write_bytes(data)
    assert run(*arguments[:-1], "-q").code == 0
    for file in plan["files"]:
        written = GGUFFile.open(file["path"])
        assert file["bytes"] == written.path.stat().st_size
        assert [
            (t["name"], t["type"], tuple(t["shape"]), t["bytes"], t["offset"])
            for t in file["tensors"]
        ] == [(t.name, t.type.name, t.shape, t.nbytes, t.offset) for t in written.tensors.values()]
        assert f"{written.path}: " in text
    assert "token_embd.weight                300 x 64  Q8_0  8.5" in text


def test_inspect_a_file(bf16_gguf: Path) -> None:
    about = json.loads(run("inspect", bf16_gguf, "--json").out)
    file = GGUFFile.open(bf16_gguf)
    assert about["kind"] == "gguf"
    assert about["metadata"]["lfm2.block_count"] == 2
    assert about["metadata"]["tokenizer.ggml.tokens"]["length"] == 300
    assert [t["name"] for t in about["tensors"]] == list(file.tensors)
    assert about["types"]["BF16"]["bytes"] == sum(
        t.nbytes for t in file.tensors.values() if t.type.name == "BF16"
    )
    text = run("inspect", bf16_gguf).out
    assert "general.architecture            " in text
    assert re.search(r"\nblk\.0\.shortconv\.in_proj\.weight +768 x 256 +BF16 +393216\n", text)
    assert f"{bf16_gguf}: 1,324,160 weights" in text
    full = json.loads(run("inspect", bf16_gguf, "--json", "--full").out)
    assert len(full["metadata"]["tokenizer.ggml.tokens"]) == 300


def test_inspect_a_folder(wide: Path) -> None:
    about = json.loads(run("inspect", wide, "--json").out)
    assert (about["kind"], about["weights"]) == ("checkpoint", 1_324_160)
    assert about["metadata"] == CASES[NAME].config
    assert "model.layers.0.conv.conv.weight" in run("inspect", wide).out


@pytest.mark.slow
def test_inspect_what_is_not_utf8(tmp_path: Path) -> None:
    text = b"caf\xe9\x1b[2J".decode("utf-8", "surrogateescape")
    metadata = {text: Value(ValueType.ARRAY, [text], ValueType.STRING)}
    with lay_out(metadata, [TensorSpec(text, GGMLType.F32, (1,))]).create(tmp_path / "f.gguf"):
        pass
    for option in ([], ["--json"]):
        command = [*COMMAND, "inspect", str(tmp_path / "f.gguf"), *option]
        strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
        done = subprocess.run(command, capture_output=True, env=strict)
        assert (done.returncode, b"next: " in done.stderr) == (0, not option)
        assert "caf\ufffd" in done.stdout.decode()
        assert b"\x1b" not in done.stdout  # nor does a file's text command the terminal


def test_json_of_a_file_commands_no_terminal(tmp_path: Path) -> None:
    """Its texts come back whole, and no control character of them is printed or written."""
    text = "é" + "".join(map(chr, range(1, 0x100)))
    with lay_out({"key": Value(ValueType.STRING, text)}, []).create(tmp_path / "a.gguf"):
        pass
    result = run("inspect", tmp_path / "a.gguf", "--json", "--json-file", tmp_path / "a.json")
    assert result.code == 0
    for said in (result.out, (tmp_path / "a.json").read_text("utf-8")):
        assert not [c for c in said if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]
        assert json.loads(said)["metadata"]["key"] == text
        assert "é" in said


def test_a_reader_that_leaves_early(bf16_gguf: Path) -> None:
    command = f"{' '.join(COMMAND)} inspect --json --full {bf16_gguf} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def on_a_terminal(*arguments: object, width: int = 200) -> tuple[int, str]:
    """Exit code and output of a command whose output goes to a terminal."""
    pty = pytest.importorskip("pty", reason="needs terminals as POSIX has them")
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": str(width)}
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=child, stderr=child, env=environment
    ) as process:
        os.close(child)
        said = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes there any more
            while part := os.read(parent, 65536):
                said += part
    os.close(parent)
    return process.returncode, said.decode()


@pytest.mark.slow
def test_a_bar_on_a_terminal(wide: Path, tmp_path: Path) -> None:
    code, said = on_a_terminal("convert", wide, "-o", tmp_path, "-t", "Q4_K_M", "-t", "Q6_K")
    assert code == 0
    assert "/21 tensors" in said
    assert "\x1b[2K" in said  # and it is wiped away
    last, _next = said.splitlines()[-2:]
    assert last.startswith(str(tmp_path))
    assert "Q6_K" in last
    code, said = on_a_terminal("convert", wide, "-o", tmp_path, "-f", "--quiet")
    assert (code, said) == (0, "")


def test_a_table_on_a_terminal(tmp_path: Path) -> None:
    """What looks like Rich's markup, or like a command to the terminal, is text."""
    text = "[bold]a[/] \\[/red] \x1b[2J {{ b[0] }}\nc"
    with lay_out({"key": Value(ValueType.STRING, text)}, []).create(tmp_path / "f.gguf"):
        pass
    code, said = on_a_terminal("inspect", tmp_path / "f.gguf")
    assert code == 0
    assert "[bold]a[/] \\[/red] \\x1b[2J {{ b[0] }}\\nc" in said


def test_a_tensor_named_like_markup(tmp_path: Path) -> None:
    metadata = {"general.architecture": Value(ValueType.STRING, "lfm2")}
    tensor = TensorSpec("[/red].weight", GGMLType.F32, (2, 256))
    with lay_out(metadata, [tensor]).create(tmp_path / "in.gguf"):
        pass
    code, said = on_a_terminal("quantize", tmp_path / "in.gguf", "-o", tmp_path / "out.gguf")
    assert code == 0
    assert "[/red].weight" in said


def test_a_file_named_like_an_emoji(small: Path, tmp_path: Path) -> None:
    target = tmp_path / ":heart:.gguf"
    code, said = on_a_terminal("convert", small, "-t", "F16", "-o", target)
    assert code == 0
    assert said.count(str(target)) == 2  # and in the command that comes next
    result = run("convert", small, "-t", "F16", "-fo", target)
    assert str(target) in result.out
    assert str(target) in result.err


def lines_on(width: int, *arguments: object) -> list[str]:
    """What a command prints on a terminal of a width, without what steers it."""
    code, said = on_a_terminal(*arguments, width=width)
    assert code in (0, 1), said
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said).replace("\r\n", "\n")
    return plain.replace("\r", "\n").splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit_the_terminal_and_have_every_figure(
    width: int, bf16_gguf: Path, wide: Path
) -> None:
    for command in (("inspect", bf16_gguf), ("convert", wide, "--dry-run")):
        *table, last, _next = lines_on(width, *command)
        assert max(map(len, table)) <= width
        assert "…" not in "".join(table)
        plain = run(*command).out.splitlines()
        for figure in {cell for line in plain[:-1] for cell in line.split() if cell.isdigit()}:
            assert any(figure in line for line in table), figure
        assert plain[-1] == last  # the totals, which the terminal wraps


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("command", ["inspect", "doctor"])
def test_json_has_no_numbers_that_json_lacks(
    command: str, value: float, bf16_gguf: Path, tmp_path: Path
) -> None:
    """Python's reader takes NaN, and hardly another does: null stands for it, as in reports."""
    change = Change({"general.sampling.temp": Value(ValueType.FLOAT32, value)})
    path = rewrite(bf16_gguf, tmp_path / "a.gguf", change)
    done = run(command, path, "--json", "--json-file", tmp_path / "a.json")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert (tmp_path / "a.json").read_text() == done.out
    data = json.loads(done.out, parse_constant=refuse)
    if command == "inspect":
        assert data["metadata"]["general.sampling.temp"] is None
