"""``lfm2gguf verify`` as a person and a CI job run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

import lfm2gguf
from lfm2gguf.calibration import collect_imatrix
from lfm2gguf.conversion import Recipe
from lfm2gguf.imatrix import write_imatrix
from tests.cli import command

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

REPOSITORY = Path(__file__).parents[2]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``verify`` with a text of one chunk, in this process: NumPy and llama.cpp are there."""
    given = ("verify", "--chunks", 1, *arguments)
    done = command.run(*given)
    return subprocess.CompletedProcess(given, done.code, done.out, done.err)


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    """One process, as the shell starts it, from the source tree."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "cli")])
    return subprocess.run(
        [*command.COMMAND, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": path, "PYTHONUTF8": "1"},
    )


@pytest.mark.slow
def test_a_good_file_exits_with_0_and_writes_every_report(
    example: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    reports = {
        "--json-file": "a.json", "--junit": "a.xml", "--markdown": "a.md", "--plot": "a.svg",
        "--write-baseline": "b.json",
    }  # fmt: skip
    options = [part for option, name in reports.items() for part in (option, tmp_path / name)]
    done = run(files["Q4_K_M"], "--reference", example, "--threads", 1, *options)
    assert done.returncode == 0, done.stderr
    assert "mean KL divergence" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} == set(reports.values())
    again = run(
        files["Q4_K_M"], "-r", example, "--threads", 1, "--baseline", tmp_path / "b.json", "-q"
    )
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_failed_gate_exits_with_1_and_says_which(example: Path, files: dict[str, Path]) -> None:
    done = run(files["Q4_0"], "-r", example, "--max-kld", "0.001", "--engine", "numpy")
    assert done.returncode == 1
    assert "FAILED: mean KL divergence" in done.stdout
    assert "Traceback" not in done.stderr


def test_quiet_says_why_it_failed(example: Path, files: dict[str, Path]) -> None:
    done = run(files["Q4_0"], "-r", example, "--max-kld", "0.001", "--engine", "numpy", "-q")
    assert (done.returncode, done.stdout) == (1, "")
    assert "FAILED: mean KL divergence" in done.stderr
    assert done.stderr.count("\n") == 1


def test_json_goes_to_standard_output_alone(example: Path, files: dict[str, Path]) -> None:
    done = run(
        files["Q8_0"], "-r", example, "--engine", "numpy", "--json",
        "--min-top1", "100%", "--max-ppl-increase", "0.5",
    )  # fmt: skip
    assert done.returncode == 1
    report = json.loads(done.stdout)["files"][0]
    limits = {gate["name"]: gate["limit"] for gate in report["gates"]}
    assert limits["same top token"] == 1.0
    assert limits["perplexity increase"] == 0.5


def test_a_folder_gives_one_ladder(example: Path, files: dict[str, Path], tmp_path: Path) -> None:
    for name in ("Q8_0", "Q4_0"):
        shutil.copy(files[name], tmp_path)
    done = run(tmp_path, "-r", example, "--engine", "numpy")
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines()[1:]]
    assert rows == [
        ["file", "verdict"],
        [files["Q8_0"].name, "passed"],
        [files["Q4_0"].name, "passed"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.gguf", "-r", "{example}"], "no such file"),
        (["{example}", "-r", "{example}"], "no .gguf file in this folder"),
        (["{Q8_0}", "-r", "{Q4_0}"], "is quantized"),
        (["{Q8_0}", "-r", "absent"], "no such folder"),
        (["{Q8_0}", "-r", "{example}", "--text", "absent.txt"], "the text cannot be read"),
        (["{Q8_0}", "-r", "{example}", "--engine", "torch"], "is not one of"),
        (["{Q8_0}", "-r", "{example}", "--plot", "a.pdf"], "can be .svg or .png"),
        (
            ["{Q8_0}", "-r", "{example}", "--json-file", "absent/a.json"],
            "no such folder; make it first",
        ),
        (["{Q8_0}", "-r", "{example}", "--device", "quantum"], "device (--device) is 'quantum'"),
        (["{Q8_0}", "-r", "{example}", "--max-ppl-increase", "much"], "is not a share"),
        (["{Q8_0}", "-r", "{example}", "--max-ppl-increase", "nan"], "is not a number"),
        (["{Q8_0}", "-r", "{example}", "--min-top1", "90"], "such as 0.9 or 90%"),
        (["{Q8_0}", "-r", "{example}", "--threads", "100000"], "it must be 1 to 512"),
        (
            ["{Q8_0}", "-r", "{BF16}", "--chat", "c.jsonl", "--text", "{example}/README.md"],
            "needs a checkpoint",
        ),
    ],
)
def test_what_cannot_be_judged_exits_with_2_in_one_line(
    example: Path, files: dict[str, Path], arguments: list[str], message: str
) -> None:
    names = {"example": example, **files}
    done = run(*(argument.format(**names) for argument in arguments))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", "").split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_convert_can_verify_what_it_wrote(example: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    done = start("convert", example, "-t", "Q8_0", "-o", target, "--verify")
    assert done.returncode == 0, done.stderr
    assert "mean KL divergence" in done.stdout
    assert target.is_file()


@pytest.mark.slow
def test_a_converted_file_that_fails_is_kept(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits that nothing can meet stand for a fault: the converter itself makes none."""
    from typer.testing import CliRunner

    from lfm2gguf.verification import limits
    from lfm2gguf_cli.main import make_app

    text = limits.TextLimits(-1.0, 0.0, 1.0)
    monkeypatch.setitem(limits.TYPE_LIMITS, "Q8_0", replace(limits.TYPE_LIMITS["Q8_0"], text=text))
    target = tmp_path / "a.gguf"
    arguments = ["convert", str(example), "-t", "Q8_0", "-o", str(target)]
    done = CliRunner().invoke(make_app(arguments), [*arguments, "--verify"])
    assert done.exit_code == 1
    assert "kept, but it did not pass: a.gguf" in done.output
    assert target.is_file()
    quiet = CliRunner().invoke(make_app(arguments), [*arguments, "--verify", "-qf"])
    assert quiet.exit_code == 1
    assert "a.gguf FAILED: " in quiet.output


def test_a_split_model_is_one_file_of_the_ladder(example: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    lfm2gguf.convert(example, target, Recipe("Q8_0", split_max_size=2_000_000), jobs=1)
    parts = list(tmp_path.iterdir())
    assert len(parts) > 1
    report = tmp_path / "report.json"
    done = run(tmp_path, "-r", example, "--threads", 1, "--json-file", report)
    assert done.returncode == 0, done.stderr
    [file] = json.loads(report.read_text())["files"]
    assert file["bytes"] == sum(part.stat().st_size for part in parts)


@pytest.fixture(scope="module")
def companions(example: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """GGUF files that lie beside models and are none."""
    folder = tmp_path_factory.mktemp("companions")
    write_imatrix(collect_imatrix(example, chunks=1), folder / "imatrix.gguf")
    made = {"imatrix": folder / "imatrix.gguf"}
    for kind, architecture in (("mmproj", "clip"), ("adapter", "lfm2")):
        made[kind] = folder / f"{kind}.gguf"
        writer = GGUFWriter(made[kind], architecture)
        writer.add_type(kind)
        writer.add_tensor("a", np.zeros(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return made


def test_a_folder_as_publish_makes_it(
    example: Path, files: dict[str, Path], companions: dict[str, Path], tmp_path: Path
) -> None:
    """The importance matrix, the projector and the adapter beside the models are no models."""
    for file in (files["Q8_0"], *companions.values()):
        shutil.copy(file, tmp_path)
    done = run(tmp_path, "-r", example, "--engine", "numpy", "--chunks", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert [Path(f["file"]).name for f in json.loads(done.stdout)["files"]] == [files["Q8_0"].name]


def test_what_is_no_model_is_named(example: Path, companions: dict[str, Path]) -> None:
    for kind, file in companions.items():
        done = run(file, "-r", example, "--engine", "numpy")
        assert done.returncode == 2
        assert f"{file.name}: is no model (its general.type is {kind!r})" in done.stderr
