"""What the options of the commands have in common, and what people write in their place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import typer.main

from lfm2gguf import plan
from lfm2gguf.calibration import OWN_TEXT
from lfm2gguf.calibration.session import MOST_OWN_TEXT
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.publication.plan import LADDER
from lfm2gguf_cli.main import COMMANDS, make_app
from lfm2gguf_cli.nearest import nearest
from tests.cli.command import listing, refusal, run


def options(command: str) -> dict[str, Any]:
    """A command's parameters as Typer made them, by each of their names."""
    app: Any = typer.main.get_command(make_app([command]))
    found = app.commands[command].params
    return {name: param for param in found for name in (*param.opts, *param.secondary_opts)}


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, Any]]:
    return {command: options(command) for command in COMMANDS}


def test_every_option_says_what_it_does_and_takes(known: dict[str, dict[str, Any]]) -> None:
    for command, params in known.items():
        for name, param in params.items():
            if param.param_type_name == "option":
                assert param.help, (command, name)
            assert param.metavar or not getattr(param, "multiple", False), (command, name)


def test_json_is_a_flag_beside_a_file_in_every_command_that_reports(
    known: dict[str, dict[str, Any]],
) -> None:
    for command in set(COMMANDS) - {"serve", "rpc-server"}:
        assert known[command]["--json"].is_flag, command
        assert not known[command]["--json-file"].is_flag, command
        assert {"--quiet", "-q"} <= known[command].keys()


def test_the_defaults_that_help_spells_are_the_librarys(known: dict[str, dict[str, Any]]) -> None:
    for command in ("convert", "calibrate"):
        option = known[command]["--own-text"]
        assert float(option.show_default) == OWN_TEXT
        range_of = option if hasattr(option, "max") else option.type  # an older Typer
        assert range_of.max == MOST_OWN_TEXT
    shown = known["publish"]["--type"].show_default
    assert tuple(shown.replace(" and ", ", ").split(", ")) == LADDER


def test_an_adapter_is_lora_everywhere(known: dict[str, dict[str, Any]]) -> None:
    for command, params in known.items():
        assert not [name for name in params if "adapter" in name and name.startswith("-")], command
    for command in ("convert", "calibrate", "imatrix", "verify", "run"):
        assert "--lora" in known[command]


@pytest.mark.parametrize(
    ("command", "given", "meant"),
    [
        ("convert", "--quant", "--type"),
        ("convert", "--qtype", "--type"),
        ("convert", "--dtype", "--type"),
        ("convert", "--out", "--output"),
        ("convert", "--output-dir", "--output"),
        ("convert", "--overwrite", "--force"),
        ("convert", "--model_name", "--model-name"),
        ("convert", "--threads", "--jobs"),
        ("quantize", "--imatrx", "--imatrix"),
        ("quantize", "--allow", "--allow-requantize"),
        ("verify", "--ref", "--reference"),
        ("run", "--adapter", "--lora"),
        ("run", "--temp", "--temperature"),
        ("run", "--n-gpu-layers", "--gpu-layers"),
        ("run", "--ctx-size", "--context"),
        ("bench", "--n-ctx", "--contexts"),
        ("convert", "--zzz", None),
        ("convert", "--quarantine", None),  # difflib's nearest would be --quiet
    ],
)
def test_an_unknown_option_names_the_one_that_fits(
    command: str, given: str, meant: str | None, known: dict[str, dict[str, Any]]
) -> None:
    assert nearest(given, list(known[command])) == meant


def test_an_unknown_option_is_told_on_one_line() -> None:
    done = run("convert", "x", "--quant", "Q8_0")
    assert done.code == 2
    assert "No such option: --quant. Did you mean --type?" in done.err
    done = run("convert", "x", "--zzz")
    assert "No such option: --zzz. " in done.err
    assert "convert --help lists the options" in done.err


def test_a_new_folder_is_made_when_there_is_something_for_it(small: Path, tmp_path: Path) -> None:
    target = f"{tmp_path / 'a' / 'new'}/"
    assert run("convert", small, "-o", target, "--dry-run", "-q").code == 0
    assert not list(tmp_path.iterdir())
    assert run("convert", small, "-qo", target, "-t", "q8_0,BF16").code == 0
    names = sorted(path.name for path in (tmp_path / "a" / "new").iterdir())
    assert names == ["LFM2-Small-BF16.gguf", "LFM2-Small-Q8_0.gguf"]
    assert run("convert", small, "-qo", tmp_path / "b", "-t", "Q8_0", "-t", "BF16").code == 0
    assert len(list((tmp_path / "b").iterdir())) == 2


def test_a_new_folder_goes_when_nothing_was_written(checkpoint: Path, tmp_path: Path) -> None:
    made = plan(checkpoint, f"{tmp_path / 'a' / 'new'}/", "Q8_0")
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = b"\xff\xff\xff\xff"  # NaN
    path.write_bytes(data)
    before = listing(tmp_path)
    assert "model.safetensors" in refusal("convert", checkpoint, "-qo", f"{tmp_path}/a/new/",
                                          within=tmp_path)  # fmt: skip
    with pytest.raises(Exception, match=r"model\.safetensors"):
        made.write(jobs=1)
    assert listing(tmp_path) == before
    assert not (tmp_path / "a").exists()


def test_llama_cpps_names_of_options(small: Path, tmp_path: Path) -> None:
    """--outfile with {ftype}, --outtype, --model-name: convert_hf_to_gguf.py, commit 0c1e57098."""
    arguments = ("--outfile", tmp_path / "x-{ftype}.{OUTTYPE}.gguf", "--outtype", "q8_0,f16")
    assert run("convert", small, *arguments, "--model-name", "My Model", "-q").code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"x-q8_0.Q8_0.gguf", "x-f16.F16.gguf"}
    named = GGUFFile.open(tmp_path / "x-f16.F16.gguf")
    plain = plan(small, type="F16").drafts[0].metadata
    assert named.get("general.name") == "My Model"
    assert list(named.metadata) == list(plain)
    assert {k for k, v in named.metadata.items() if v.to_bytes() != plain[k].to_bytes()} == {
        "general.name"
    }
    assert "name it; BF16" in refusal("convert", small, "--outtype", "auto", within=tmp_path)


def test_convert_of_a_gguf_is_quantize(bf16_gguf: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.gguf"
    source.write_bytes(bf16_gguf.read_bytes())
    done = run("convert", source, "-t", "Q8_0", "-o", tmp_path / "a.gguf")
    assert (done.code, "lfm2gguf quantize" in done.err) == (0, True)
    assert run("quantize", source, "-t", "Q8_0", "-qo", tmp_path / "b.gguf").code == 0
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    said = refusal("convert", source, "--lora", "x", within=tmp_path)
    assert "--lora is for a checkpoint" in said
    folder = refusal("quantize", tmp_path, within=tmp_path)
    assert "convert" in folder


@pytest.mark.parametrize(
    "arguments",
    [("verify", "a.gguf", "-r", "b"), ("run", "a.gguf"), ("serve", "a.gguf"), ("bench", "a.gguf")],
)
def test_the_first_load_can_be_left_out(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LFM2GGUF_TRIAL", "1")
    refusal(*arguments, within=tmp_path)
    assert os.environ["LFM2GGUF_TRIAL"] == "1"
    refusal(*arguments, "--no-trial", within=tmp_path)
    assert os.environ["LFM2GGUF_TRIAL"] == "0"


def test_what_to_do_next_is_the_last_line(small: Path, bf16_gguf: Path, tmp_path: Path) -> None:
    done = run("convert", small, "-o", tmp_path, "-t", "Q8_0")
    assert done.err.splitlines()[-1] == f"next: lfm2gguf run {tmp_path}/LFM2-Small-Q8_0.gguf"
    assert run("inspect", bf16_gguf).err == f"next: lfm2gguf doctor {bf16_gguf}\n"
    assert run("doctor", bf16_gguf).err == f"next: lfm2gguf run {bf16_gguf}\n"
    assert run("doctor", bf16_gguf, "--json").err == ""
    assert run("devices", "-q").err == run("devices", "-q").out == ""


def test_a_file_of_json_beside_words(bf16_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    both = run("inspect", bf16_gguf, "--json-file", file)
    assert "1,324,160 weights" in both.out
    assert file.read_text("utf-8") == run("inspect", bf16_gguf, "--json").out
    said = refusal("inspect", bf16_gguf, "--json-file", tmp_path / "no" / "a.json", within=tmp_path)
    assert "no such folder" in said
