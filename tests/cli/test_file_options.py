"""Every option and argument that takes a file, given files that it cannot be: one clear line.

The commands' own parameters are gone over, so that a new one is tried without being named here.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from lfm2gguf_cli.groups import WRITTEN as RESULT_OPTIONS
from lfm2gguf_cli.main import COMMANDS
from tests.cli.command import refusal, run
from tests.cli.test_options import options

# What is written is another test's (test_bad_targets.py); a program's name is no file.
WRITTEN = ("output", "json_file", "junit", "markdown", "plot", "html", "csv", "write_baseline",
           "workspace", "program")  # fmt: skip
FILES = ("FILE", "FOLDER", "ADAPTER", ".gguf")
UNMARKED = ("reference", "target")  # Hub ids as well: their metavar says something else
# What takes any text, or what takes JSON of any kind.
SAID_OTHERWISE = ("--image", "--audio", "--target")  # the model has no use for any
ANY_TEXT = ("text", "calibration_text", "tensor_type_file", "api_key_file")
BESIDE = {  # what a command needs besides, so that this is what it stumbles over
    "convert": ("{folder}", "-o", "{out}/", "-j", "1"),
    "quantize": ("{gguf}", "-o", "{out}/"),
    "imatrix": ("{folder}", "-o", "{out}.gguf", "--chunks", "1"),
    "calibrate": ("{folder}", "-o", "{out}/", "--chunks", "1"),
    "verify": ("{gguf}", "--reference", "{folder}", "--chunks", "1"),
    "publish": ("{folder}", "--to", "a/b", "--no-upload", "-o", "{out}", "-q"),
    "run": ("{gguf}", "-p", "hi", "-n", "1"),
    "serve": ("{gguf}", "--port", "0"),
    "bench": ("{gguf}",),
    "export": ("ollama", "{gguf}"),
}


@dataclass(frozen=True)
class Parameter:
    """An option or argument that takes a file."""

    command: str
    name: str
    flag: str  # empty: an argument
    form: str  # how a file is named there

    def __str__(self) -> str:
        return f"{self.command} {self.flag or self.name}"

    def arguments(self, file: Path, values: dict[str, Any]) -> list[str]:
        """Return a whole command that names this file here."""
        beside = [word.format(**values) for word in BESIDE.get(self.command, ())]
        if self.name == "chat" and "--chunks" in beside:  # which conversations have none of
            del beside[(at := beside.index("--chunks")) : at + 2]
        named = self.form.format(file)
        if self.flag:
            return [self.command, *beside, self.flag, named]
        place = 1 if self.command == "export" else 0
        return [self.command, *beside[:place], named, *beside[place + 1 :]]


def parameters() -> Iterator[Parameter]:
    for command in COMMANDS:
        for param in {id(p): p for p in options(command).values()}.values():
            shown = param.metavar or ""
            is_option = param.param_type_name == "option"
            takes_file = any(word in shown for word in FILES) or param.name in UNMARKED
            if param.name not in WRITTEN and (takes_file or not is_option):
                form = "x={}" if "NAME=" in shown else "{}"
                yield Parameter(command, param.name, param.opts[0] if is_option else "", form)


PARAMETERS = list(parameters())


def test_each_option_that_is_a_path_says_what_it_takes() -> None:
    """By which this file finds it."""
    for command in COMMANDS:
        name = command.replace("-", "_")
        hints = get_type_hints(getattr(import_module(f"lfm2gguf_cli.{name}"), name))
        for param in options(command).values():
            kinds = [hints.get(param.name), *get_args(hints.get(param.name))]
            if Path in kinds or list[Path] in kinds:
                assert any(word in (param.metavar or "") for word in FILES), (command, param.name)


@pytest.fixture(scope="module")
def sound(small: Path, bf16_gguf: Path) -> dict[str, Any]:
    return {"folder": small, "gguf": bf16_gguf}


def check(parameter: Parameter, file: Path, sound: dict[str, Any], within: Path) -> None:
    within.mkdir(exist_ok=True)
    said = refusal(*parameter.arguments(file, sound | {"out": within / "out"}), within=within)
    assert "Errno" not in said
    assert "a fault of lfm2gguf" not in said
    assert file.name in said or str(file) in said or parameter.flag in SAID_OTHERWISE, said


@pytest.mark.parametrize("parameter", PARAMETERS, ids=str)
def test_a_file_that_is_not_there(
    parameter: Parameter, sound: dict[str, Any], tmp_path: Path
) -> None:
    check(parameter, tmp_path / "absent", sound, tmp_path / "within")


CONTENTS = {
    "not-utf8": b"\xff\xfe\x00\x80\xc3" * 20,
    "empty": b"",
    "cut": b"[1, 2",
    "text": b'"text"',
    "deep": b"[" * 100_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("parameter", PARAMETERS, ids=str)
def test_a_file_that_is_something_else(
    parameter: Parameter, sound: dict[str, Any], tmp_path: Path
) -> None:
    files = [tmp_path / "folder", tmp_path / "file" / "below", tmp_path / ("x" * 300)]
    files[0].mkdir()
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
        if parameter.name not in ANY_TEXT or name == "not-utf8":
            files.append(tmp_path / name)
    if hasattr(os, "symlink") and os.name != "nt":
        (tmp_path / "loop").symlink_to("loop")
        files.append(tmp_path / "loop")
    huge = tmp_path / "huge"
    huge.touch()
    os.truncate(huge, 1 << 40)  # takes no place on the disk
    (tmp_path / "file").touch()
    for file in (*files, huge):
        check(parameter, file, sound, tmp_path / "within")


RESULTS = [
    (command, param.opts[0])
    for command in COMMANDS
    for param in {id(p): p for p in options(command).values()}.values()
    if param.name in RESULT_OPTIONS and param.param_type_name == "option"
]


def test_results_are_known_where_they_are_looked_for() -> None:
    """By a name of that list: a new option of the kind must come in."""
    assert {name for name in WRITTEN if name not in ("workspace", "program")} == {*RESULT_OPTIONS}


def stated(command: str, gguf: Path, folder: Path, out: Path) -> list[str]:
    """A whole command that reads this GGUF, where it can be given one."""
    beside = list(BESIDE.get(command, ()))
    if command in ("quantize", "convert", "calibrate"):
        beside = [str(gguf), "-f"]
    elif command == "imatrix":
        beside = [str(gguf), "-f", "--chunks", "1"]
    elif command in ("inspect", "doctor"):
        beside = [str(gguf)]
    elif command in ("convert-lora", "publish"):
        beside = [str(folder), *(["--to", "a/b", "--no-upload"] if command == "publish" else [])]
    elif command == "export":
        beside = [*beside, "-f"]
    return [command, *(word.format(gguf=gguf, folder=folder, out=out) for word in beside)]


@pytest.mark.parametrize(("command", "flag"), RESULTS)
def test_a_result_never_takes_the_place_of_what_is_read(
    command: str, flag: str, sound: dict[str, Any], tmp_path: Path
) -> None:
    if command in ("convert-lora", "publish", "devices"):
        pytest.skip("reads folders, which no file can replace, or nothing")
    gguf = tmp_path / "model.gguf"
    shutil.copy(sound["gguf"], gguf)
    (tmp_path / "link.gguf").symlink_to(gguf)
    for named in (gguf, tmp_path / "link.gguf", tmp_path / "." / "model.gguf"):
        words = stated(command, gguf, sound["folder"], tmp_path / "out")
        said = refusal(*words, flag, named, within=tmp_path)
        assert "is what is being read" in said, said


@pytest.mark.parametrize("command", sorted({command for command, _ in RESULTS}))
def test_two_results_have_two_files(command: str, sound: dict[str, Any], tmp_path: Path) -> None:
    flags = [flag for owner, flag in RESULTS if owner == command]
    for one, other in itertools.combinations(flags, 2):
        words = stated(command, sound["gguf"], sound["folder"], tmp_path / "out")
        said = refusal(*words, one, tmp_path / "a.x", other, tmp_path / "." / "a.x",
                       within=tmp_path)  # fmt: skip
        assert "name the same file" in said, said


@pytest.mark.parametrize(("command", "flag"), RESULTS)
def test_a_stroke_is_standard_output_or_refused(
    command: str, flag: str, sound: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never makes a file of that name."""
    if flag not in ("--output", "--json-file") or (command, flag) == ("publish", "--output"):
        pytest.skip("a report, which is printed; or a folder")
    monkeypatch.chdir(tmp_path)
    words = stated(command, sound["gguf"], sound["folder"], tmp_path / "out")
    if command == "convert-lora":
        words = [command, str(sound["folder"]), "--base", str(sound["folder"])]
    result = run(*words, flag, "-")
    assert not (tmp_path / "-").exists()
    assert result.code == 2, result
