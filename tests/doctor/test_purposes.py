"""What a file is for, and so what comes next; what is no GGUF at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import convert, convert_lora, diagnose
from lfm2gguf.gguf_file import Value, ValueType, lay_out
from lfm2gguf.imatrix import Entry, ImportanceMatrix, write_imatrix
from tests.cli.command import refusal, run
from tests.making.adapters import CASES, base, make_adapter
from tests.making.checkpoints import make
from tests.making.multimodal import IMAGE_CASE, make_multimodal


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("purposes")
    case = CASES["plain"]
    source, adapter = make(base(case), folder / "base"), make_adapter(case, folder / "adapter")
    vision = make_multimodal(IMAGE_CASE, folder / "vl")
    matrix = folder / "matrix.gguf"
    entry = Entry(np.ones((1, 32), np.float32), np.array([64]))
    write_imatrix(ImportanceMatrix({"blk.0.ffn_up.weight": entry}, ("x",), 1, 64), matrix)
    foreign = folder / "foreign.gguf"
    layout = lay_out({"general.architecture": Value(ValueType.STRING, "mamba")}, [])
    with layout.create(foreign):
        pass
    return {
        "checkpoint": source,
        "model": convert(source, folder / "model.gguf", "F32", jobs=1).files[0].path,
        "adapter": convert_lora(adapter, source, folder / "adapter.gguf").file.path,
        "projector": convert(
            vision, folder / "mmproj.gguf", "F32", projector=True, jobs=1
        ).files[0].path,
        "imatrix": matrix,
        "other": foreign,
    }  # fmt: skip


NEXT = {
    "checkpoint": "next: lfm2gguf convert {file}",
    "model": "next: lfm2gguf run {file}",
    "adapter": "next: lfm2gguf run BASE.gguf --lora {file}",
    "projector": "next: lfm2gguf run MODEL.gguf --mmproj {file}",
    "imatrix": "next: lfm2gguf convert SOURCE --imatrix {file}",
    "other": "",
}


@pytest.mark.parametrize("purpose", NEXT)
def test_what_comes_next_is_what_it_is_for(files: dict[str, Path], purpose: str) -> None:
    found = diagnose(files[purpose])
    assert found.purpose == ("model" if purpose == "checkpoint" else purpose)
    assert [f.id for f in found.findings] == (["architecture"] if purpose == "other" else [])
    said = run("doctor", files[purpose]).err
    assert said.strip() == NEXT[purpose].format(file=files[purpose])


def test_an_importance_matrix_is_read(files: dict[str, Path], tmp_path: Path) -> None:
    data = files["imatrix"].read_bytes()
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(data.replace(b"imatrix.datasets", b"imatrix.dataxets"))
    (finding,) = diagnose(damaged).findings
    assert finding.id == "importance-matrix"
    assert finding.what.startswith("the metadata has no imatrix.datasets")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"tjgg" + bytes(60), "before GGUF"),
    ],
)
def test_what_lies_in_a_ggufs_place(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    for command in ("doctor", "inspect", "quantize", "bench"):
        assert said in refusal(command, path, within=tmp_path)
