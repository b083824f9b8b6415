"""The commands imatrix and calibrate, and --imatrix of convert and quantize."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lfm2gguf.calibration.material import OWN_TOKENS
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.imatrix import read_imatrix
from tests.cli.command import refusal, run
from tests.making.checkpoints import Case, config, make


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "text.txt").write_text("abc def gh. " * 400)
    return make(Case(config(), dtype="F32"), folder / "LFM2-Small")


def collected(source: Path, target: Path) -> list[object]:
    text = source.parent / "text.txt"
    return ["imatrix", source, "-o", target, "--text", text, "--ctx", 32, "--chunks", 8]


def test_a_matrix_is_made_shown_merged_and_used(source: Path, tmp_path: Path) -> None:
    made = run(*collected(source, tmp_path / "m.gguf"), "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["chunks"] == 8
    again = run("imatrix", "--in-file", tmp_path / "m.gguf", "--in-file", tmp_path / "m.gguf",
                "-o", tmp_path / "twice.dat")  # fmt: skip
    assert again.code == 0, again.err
    assert read_imatrix(tmp_path / "twice.dat").chunk_count == 16
    shown = run("imatrix", "--in-file", tmp_path / "m.gguf", "--show-statistics", "--json")
    rows = json.loads(shown.out)["statistics"]
    assert {row["name"] for row in rows} == set(read_imatrix(tmp_path / "m.gguf").entries)

    used = run("convert", source, "-t", "Q4_0", "-o", tmp_path / "a.gguf",
               "--imatrix", tmp_path / "m.gguf")  # fmt: skip
    assert used.code == 0, used.err
    assert GGUFFile.open(tmp_path / "a.gguf").get("quantize.imatrix.chunks_count") == 8
    run("convert", source, "-t", "F32", "-o", tmp_path / "f32.gguf")
    run("quantize", tmp_path / "f32.gguf", "-t", "Q4_0", "-o", tmp_path / "b.gguf",
        "--imatrix", tmp_path / "m.gguf")  # fmt: skip
    a, b = (GGUFFile.open(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    assert all((a.data(name) == b.data(name)).all() for name in a.tensors)


def test_what_cannot_be_done_is_refused(source: Path, tmp_path: Path) -> None:
    assert "nothing to do" in refusal("imatrix", within=tmp_path)
    assert "where to?" in refusal("imatrix", source, within=tmp_path)
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    refusal("imatrix", "--in-file", tmp_path / "no.gguf", "--show-statistics", within=tmp_path)
    refusal("convert", source, "--imatrix", tmp_path / "no.gguf", "-o", tmp_path / "x.gguf",
            within=tmp_path)  # fmt: skip
    refusal("calibrate", source, "-t", "Q9", "-o", tmp_path / "x.gguf", within=tmp_path)


def test_calibrate_says_how_it_compares(source: Path, tmp_path: Path) -> None:
    text = source.parent / "text.txt"
    done = run("calibrate", source, "-t", "Q4_0", "-o", tmp_path / "a.gguf", "--text", text,
               "--ctx", 32, "--chunks", 16, "--json")  # fmt: skip
    assert done.code in (0, 1), done.err  # random weights: either may be nearer
    about = json.loads(done.out)["calibration"]
    assert about["better"] == (done.code == 0) == (about["kld"] < about["kld_plain"])
    tokens = GGUFFile.open(tmp_path / "a.gguf").get("lfm2gguf.calibration.tokens")
    assert tokens == 14 * 32 + 4 * OWN_TOKENS  # and about as much of the checkpoint's own text


def test_a_matrix_on_the_way_is_the_one_made_before(source: Path, tmp_path: Path) -> None:
    about = ["--text", source.parent / "text.txt", "--ctx", 32, "--chunks", 8]
    assert run(*collected(source, tmp_path / "m.gguf")).code == 0
    run("convert", source, "-t", "Q4_0", "-o", tmp_path / "a.gguf", "--imatrix",
        tmp_path / "m.gguf")  # fmt: skip
    made = run("convert", source, "-t", "Q4_0", "-o", tmp_path / "b.gguf", "--imatrix", "auto",
               *about)  # fmt: skip
    assert made.code == 0, made.err
    a, b = (GGUFFile.open(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    assert all((a.data(name) == b.data(name)).all() for name in a.tensors)
    assert b.get("quantize.imatrix.chunks_count") == 8
    assert b.get("quantize.imatrix.file") is None


def test_quantize_computes_a_matrix_on_the_way(source: Path, tmp_path: Path) -> None:
    """What convert says of --imatrix auto holds there too: it is that of the bundled text."""
    run("convert", source, "-t", "F32", "-qo", tmp_path / "f32.gguf")
    words = ["quantize", tmp_path / "f32.gguf", "-t", "Q4_0", "--imatrix"]
    made = run(*words, "auto", "-qo", tmp_path / "a.gguf")
    assert made.code == 0, made.err
    assert run("imatrix", tmp_path / "f32.gguf", "-qo", tmp_path / "m.gguf").code == 0
    assert run(*words, tmp_path / "m.gguf", "-qo", tmp_path / "b.gguf").code == 0
    a, b = (GGUFFile.open(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    assert all((a.data(name) == b.data(name)).all() for name in a.tensors)
    assert a.get("quantize.imatrix.chunks_count") == b.get("quantize.imatrix.chunks_count")
    assert "exists already" in refusal(*words, "auto", "-o", tmp_path / "a.gguf", within=tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["--text", "a.txt"], ["--chat", "a.json"], ["--chunks", "9"], ["--ctx", "64"],
        ["--workspace", "w"], ["--own-text", "2"], ["--for", "cuda"],
        ["--include-weights", "ffn"], ["--exclude-weights", "ffn"],
        ["--calibrate", "--include-weights", "ffn"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["", "dry"])
def test_an_option_without_effect_is_refused(
    words: list[str], dry: list[str], source: Path, tmp_path: Path
) -> None:
    said = refusal("convert", source, "-o", tmp_path, *words, *dry, within=tmp_path)
    assert words[-2] in said
    if "weights" in words[-2]:
        run("convert", source, "-t", "F32", "-qo", tmp_path / "f32.gguf")
        weights = words[-2:]
        assert weights[0] in refusal("quantize", tmp_path / "f32.gguf", *weights, within=tmp_path)


@pytest.mark.parametrize(
    "words", [["--text", "a.txt"], ["--chat", "a.json"], ["--chunks", "9"], ["--lora", "x"],
              ["--revision", "main"]], ids=" ".join,
)  # fmt: skip
def test_merging_reads_no_text(words: list[str], source: Path, tmp_path: Path) -> None:
    assert run(*collected(source, tmp_path / "m.gguf"), "-q").code == 0
    said = refusal("imatrix", "--in-file", tmp_path / "m.gguf", "-o", tmp_path / "n.gguf", *words,
                   within=tmp_path)  # fmt: skip
    assert " ".join(words) in said


def test_a_pattern_that_no_tensor_has_is_named(source: Path, tmp_path: Path) -> None:
    words = ["-t", "Q4_0", "--tensor-type", "ffn_dwon=F16", "--tensor-type", "ffn_up=F16"]
    told = run("convert", source, *words, "-o", tmp_path / "a.gguf")
    assert told.code == 0
    assert "'ffn_dwon' is found in no tensor's name" in told.err
    assert "'ffn_up'" not in told.err
    run("convert", source, "-t", "F32", "-qo", tmp_path / "f32.gguf")
    told = run("quantize", tmp_path / "f32.gguf", *words, "-o", tmp_path / "b.gguf", "--json")
    assert "'ffn_dwon'" in told.err
    assert "'ffn_dwon'" in json.loads(told.out)["notes"][0]


@pytest.mark.slow
def test_convert_calibrates_as_calibrate_does(source: Path, tmp_path: Path) -> None:
    about = ["--text", source.parent / "text.txt", "--ctx", 32, "--chunks", 8]
    for name, words in (("a", ["calibrate"]), ("b", ["convert", "--calibrate"])):
        done = run(*words, source, "-t", "Q4_0", "-o", tmp_path / f"{name}.gguf", *about, "--json")
        assert done.code in (0, 1), done.err
        assert json.loads(done.out)["calibration"]["tokens"] == 7 * 32 + 2 * OWN_TOKENS
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    planned = run("convert", "--calibrate", source, "-t", "Q4_0", *about, "--dry-run", "--json")
    assert json.loads(planned.out)["files"][0]["bytes"] == (tmp_path / "a.gguf").stat().st_size


@pytest.mark.slow
def test_a_file_made_to_measure(source: Path, tmp_path: Path) -> None:
    about = ["--text", source.parent / "text.txt", "--ctx", 32, "--chunks", 8]
    planned = run("convert", source, "--target-bpw", 6, *about, "--dry-run")
    assert planned.code == 0, planned.err
    assert "KL divergence" in planned.out
    (tmp_path / "out").mkdir()
    done = run("convert", source, "--bpw", 6, "--for", "cuda", "-o", tmp_path / "out", *about,
               "--json")  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(done.out)
    [file], chosen = result["files"], result["allocation"]
    assert file["bits_per_weight"] <= 6
    assert file["bytes"] == chosen["bytes"]
    again = refusal("convert", source, "--bpw", 6, "-o", tmp_path / "out", within=tmp_path / "out")
    assert "exists" in again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bpw", "0.1"], "nothing fits"),
        (["--size", "1GB", "-t", "Q4_K_M"], "leave type"),
        (["--size", "1GB", "--kld", "0.1"], "give one"),
        (["--for", "cuda"], "give one of them"),
        (["--kld", "-1"], "kld (--kld) is -1"),
        (["--bpw", "nan"], "bpw (--bpw) is nan"),
        (["--size", "0MB"], "size (--size) is 0"),
        (["--size", "-1MB"], "size (--size): '-1MB' is no size"),
        (["--bpw", "6", "--mmproj"], "a projector"),
        (["--calibrate", "--mmproj"], "a projector"),
        (["--calibrate", "--imatrix", "auto"], "leave --imatrix out"),
        (["--imatrix", "auto", "--own-text", "1"], "--own-text: is written to be calibrated on"),
        (["--own-text", "1"], "give --calibrate"),
        (["--calibrate", "-t", "Q4_0", "-t", "Q8_0"], "one type at a time"),
        (
            ["--calibrate", "-t", "IQ2_XXS"],
            "calibration does not round (it does IQ4_NL, IQ4_XS, Q2_K",
        ),
        (["--calibrate", "-t", "TQ2_0"], "calibration does not round"),
    ],
)
def test_what_does_not_go_together(
    words: list[str], message: str, source: Path, tmp_path: Path
) -> None:
    found = refusal("convert", source, "-o", tmp_path, "--ctx", 32, "--chunks", 8, *words,
                    "--text", source.parent / "text.txt", within=tmp_path)  # fmt: skip
    assert message in found


def test_types_of_tensors_from_a_file(source: Path, tmp_path: Path) -> None:
    """As llama-quantize reads it: words between white space, after those of the command line."""
    (tmp_path / "types.txt").write_text("ffn_down=Q8_0\n\n  ffn_.*=Q5_0 attn_v=q4_1\n")
    planned = run("convert", source, "-t", "Q4_0", "--tensor-type", "ffn_up=F16",
                  "--tensor-type-file", tmp_path / "types.txt", "--dry-run", "--json")  # fmt: skip
    tensors = json.loads(planned.out)["files"][0]["tensors"]
    expected = {"ffn_up": "F16", "ffn_down": "Q8_0", "ffn_gate": "Q5_0", "attn_v": "Q4_1"}
    for part, type in expected.items():
        assert {t["type"] for t in tensors if f"{part}.weight" in t["name"]} == {type}
    for name, content in (("no.txt", None), ("binary.txt", b"\xff\xfe"), ("bad.txt", b"ffn")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        words = ["convert", source, "--tensor-type-file", tmp_path / name, "--dry-run"]
        assert "tensor-type" in refusal(*words, within=tmp_path)
