"""Options and targets that are refused: one line that says why, and nothing written."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from lfm2gguf import convert
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile, Metadata, TensorSpec, Value, ValueType, lay_out
from tests.cli.command import refusal, run

ARCHITECTURE = {"general.architecture": Value(ValueType.STRING, "lfm2")}


def gguf(path: Path, metadata: Metadata, type: GGMLType = GGMLType.F32) -> Path:
    with lay_out(metadata, [TensorSpec("a.weight", type, (2, 256))]).create(path):
        return path


@pytest.mark.parametrize(
    ("given", "near"),
    [("Q4_K", "Q4_K_M"), ("q5km", "Q5_K_M"), ("fp16", "F16"), ("Q8", "Q8_0"), ("", "F32")],
)
def test_an_unknown_type(small: Path, tmp_path: Path, given: str, near: str) -> None:
    said = refusal("convert", small, "-o", tmp_path, "-t", given, within=tmp_path)
    assert f"unknown type {given!r}; did you mean {near}?" in said
    assert "Q4_K_S" in said


def test_a_source_that_is_none(tmp_path: Path) -> None:
    assert "no such folder" in refusal("convert", tmp_path / "absent", within=tmp_path)
    (tmp_path / "file").touch()
    assert "is a file" in refusal("convert", tmp_path / "file", within=tmp_path)
    assert "no such file" in refusal("quantize", tmp_path / "absent", within=tmp_path)
    assert "no such file" in refusal("inspect", tmp_path / "absent", within=tmp_path)
    assert "config.json: missing" in refusal("inspect", tmp_path, within=tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_device_is_not_replaced(small: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = refusal("convert", small, "--force", "-qo", tmp_path / "pipe", within=tmp_path)
    assert "is a device or a pipe" in said
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("command", ["convert", "quantize"])
def test_an_existing_target(command: str, small: Path, bf16_gguf: Path, tmp_path: Path) -> None:
    source, target = {"convert": small, "quantize": bf16_gguf}[command], tmp_path / "precious.gguf"
    target.write_text("precious")
    assert "--force" in refusal(command, source, "-o", target, within=tmp_path)
    assert run(command, source, "-o", target, "--force").code == 0
    assert GGUFFile.open(target).architecture == "lfm2"


def test_one_existing_target_of_several(small: Path, tmp_path: Path) -> None:
    convert(small, tmp_path, "Q8_0")
    types = ["-qt", "Q4_0", "-t", "Q8_0"]
    said = refusal("convert", small, "-o", tmp_path, *types, within=tmp_path)
    assert "Q8_0.gguf: exists already" in said


def test_several_types_into_one_file(small: Path, tmp_path: Path) -> None:
    types = ["-t", "Q4_0", "-t", "Q8_0"]
    said = refusal("convert", small, "-o", tmp_path / "one.gguf", *types, within=tmp_path)
    assert "need a folder" in said


def test_a_folder_that_is_not_there(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "absent" / "f.gguf"
    assert "no such folder" in refusal("convert", small, "-o", target, within=tmp_path)
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "f.gguf"
    assert "no such folder" in refusal("convert", small, "-o", target, within=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, which nobody can write to")
def test_a_folder_that_cannot_be_written(small: Path, tmp_path: Path) -> None:
    said = refusal("convert", small, "-qo", "/proc/f.gguf", within=tmp_path)
    assert "/proc" in said
    assert "cannot be written" in said


def test_a_name_that_is_too_long(small: Path, tmp_path: Path) -> None:
    refusal("convert", small, "-qo", tmp_path / ("x" * 5000), within=tmp_path)
    refusal("convert", small, "-qo", tmp_path / ("x" * 256), within=tmp_path)
    refusal("inspect", "x" * 5000, within=tmp_path)


def test_the_weights_being_read_are_not_overwritten(
    checkpoint: Path, bf16_gguf: Path, tmp_path: Path
) -> None:
    weights = checkpoint / "model.safetensors"
    said = refusal("convert", checkpoint, "--force", "-qo", weights, within=tmp_path)
    assert "is what is being read" in said
    source = tmp_path / "in.gguf"
    source.write_bytes(bf16_gguf.read_bytes())
    said = refusal("quantize", source, "--force", "-qo", source, within=tmp_path)
    assert "is what is being read" in said
    link = tmp_path / "link.gguf"
    link.symlink_to(source)
    assert "being read" in refusal("quantize", link, "-fqo", source, within=tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("leads", ["nowhere.gguf", "link.gguf"])  # the second: to itself
def test_a_link_that_leads_nowhere_is_there_all_the_same(
    small: Path, tmp_path: Path, leads: str
) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(leads)
    assert "exists already" in refusal("convert", small, "-qo", link, within=tmp_path)
    assert run("convert", small, "-fqo", link, "-t", "Q8_0").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["link.gguf"]
    assert not link.is_symlink()


def test_jobs_below_one(small: Path, tmp_path: Path) -> None:
    assert run("convert", small, "-o", tmp_path, "--jobs", 0).code == 2
    assert not list(tmp_path.iterdir())


def test_a_gguf_that_is_none(bf16_gguf: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_text("something else")
    for command in ("quantize", "inspect"):
        assert "not a GGUF file" in refusal(command, bad, within=tmp_path)
    bad.write_bytes(bf16_gguf.read_bytes()[:-1000])
    for command in ("quantize", "inspect"):
        assert "truncated" in refusal(command, bad, within=tmp_path)


def test_a_quantized_gguf(wide: Path, tmp_path: Path) -> None:
    source = convert(wide, tmp_path / "in.gguf", "Q8_0").files[0].path
    said = refusal("quantize", source, "-o", tmp_path / "out.gguf", within=tmp_path)
    assert "is quantized already" in said
    assert "--allow-requantize" in said
    command = ["quantize", source, "-o", tmp_path / "out.gguf", "--allow-requantize"]
    assert run(*command).code == 0
    assert GGUFFile.open(tmp_path / "out.gguf").get("general.file_type") == 15


def test_unsuitable_ggufs(tmp_path: Path) -> None:
    parts = ARCHITECTURE | {"split.count": Value(ValueType.UINT16, 3)}
    other = {"general.architecture": Value(ValueType.STRING, "llama")}
    cases = {
        "is one of 3 files of a model": gguf(tmp_path / "split.gguf", parts),
        "the architecture is 'llama'": gguf(tmp_path / "llama.gguf", other),
        "the architecture is ''": gguf(tmp_path / "none.gguf", {}),
        "is NVFP4, which": gguf(tmp_path / "nv.gguf", ARCHITECTURE, GGMLType.NVFP4),
    }
    for message, path in cases.items():
        assert message in refusal("quantize", path, "-o", tmp_path, within=tmp_path)
    with lay_out(ARCHITECTURE, []).create(tmp_path / "vocabulary.gguf"):
        pass
    path = tmp_path / "vocabulary.gguf"
    assert "holds no tensors" in refusal("quantize", path, "-o", tmp_path, within=tmp_path)


@pytest.mark.parametrize("value", [5, "a\0b", "..", "x" * 4000, "a/b\\c", b"caf\xe9", "a\nb"])
def test_a_name_in_the_metadata_that_is_no_file_name(value: object, tmp_path: Path) -> None:
    """The default name is made of the metadata, which anybody may have written."""
    if isinstance(value, int):
        name = Value(ValueType.INT32, value)
    else:
        text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
        name = Value(ValueType.STRING, text)
    source = gguf(tmp_path / "in.gguf", ARCHITECTURE | {"general.name": name})
    (tmp_path / "out").mkdir()
    result = run("quantize", source, "-qo", tmp_path / "out")
    written = [path.name for path in (tmp_path / "out").iterdir()]
    assert {path.name for path in tmp_path.iterdir()} == {"in.gguf", "out"}
    assert (result.code, result.err, len(written)) == (0, "", 1)
    assert written[0].endswith("-Q4_K_M.gguf")


def test_infinity_in_a_gguf(tmp_path: Path) -> None:
    source = gguf(tmp_path / "in.gguf", ARCHITECTURE)
    with source.open("r+b") as file:
        file.seek(GGUFFile.open(source).tensors["a.weight"].offset + 4 * 300)
        file.write(struct.pack("<f", float("inf")))
    said = refusal("quantize", source, "-qo", tmp_path, within=tmp_path)
    assert "'a.weight' holds inf at row 1, column 44" in said
