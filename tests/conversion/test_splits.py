"""Models in several files: as llama-gguf-split cuts them (golden/make_splits.py), and read back."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf import GGUFFile, convert, quantize
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.gguf_file import group, parse_size
from tests.cli.command import refusal, run
from tests.conversion.test_parity import ROOT
from tests.golden.summary import digest
from tests.making.checkpoints import LARGE, make
from tests.making.llama import logits

SPLITS = json.loads((ROOT / "tests/golden/splits.json").read_text())
GOLDEN = SPLITS["sizes"]
N = 7  # files of the BF16 at 1M


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(LARGE, tmp_path_factory.mktemp("splits") / "LFM2-Split")


@pytest.fixture(scope="module")
def whole(source: Path) -> Path:
    return convert(source, source / "whole.gguf", "BF16").files[0].path


@pytest.fixture
def parts(source: Path, tmp_path: Path) -> list[Path]:
    convert(source, tmp_path / "m.gguf", Recipe("BF16", split_max_size="1M"))
    return sorted(tmp_path.glob("m-*.gguf"))


@pytest.mark.parametrize("type", ["BF16", "Q4_K_M"])
@pytest.mark.parametrize("size", GOLDEN)
def test_the_files_are_llama_gguf_splits(
    type: str, size: str, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"{type}-{size}.gguf"
    result = convert(source, target, Recipe(type, split_max_size=size)).files[0]
    paths = sorted(tmp_path.glob("*.gguf"))
    expected = GOLDEN[size][type]
    if len(expected) == 1:  # one file is not a split here
        assert paths == [target]
        return
    assert {path.name: digest(path.read_bytes()) for path in paths} == expected
    assert (result.path, result.n_files) == (paths[0], len(paths))
    assert result.nbytes == sum(path.stat().st_size for path in paths)


def test_quantizing_from_and_to_several_files(
    whole: Path, parts: list[Path], tmp_path: Path
) -> None:
    direct = quantize(whole, tmp_path / "direct.gguf")[0].path
    assert quantize(parts[0], tmp_path / "again.gguf")[0].path.read_bytes() == direct.read_bytes()
    split = quantize(parts[0], tmp_path / "Q4_K_M-1M.gguf", Recipe(split_max_size=1_000_000))[0]
    found = {path.name: digest(path.read_bytes()) for path in tmp_path.glob("Q4_K_M-1M-*")}
    assert found == GOLDEN["1M"]["Q4_K_M"]
    assert split.n_files == len(found)


@pytest.mark.parametrize("type", SPLITS["kept"])
def test_the_same_tensors_in_as_many_files(type: str, parts: list[Path], tmp_path: Path) -> None:
    """As llama-quantize --keep-split."""
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / f"kept-{type}.gguf"
    assert run("quantize", parts[0], "-t", type, "-o", target, "--keep-split").code == 0
    found = {path.name: digest(path.read_bytes()) for path in (tmp_path / "out").iterdir()}
    assert found == SPLITS["kept"][type]


def test_reading_them_as_one(whole: Path, parts: list[Path]) -> None:
    one, several = GGUFFile.open(whole), GGUFFile.open(parts[0])
    assert len(parts) == N
    assert list(several.tensors) == list(one.tensors)
    assert all((several.data(name) == one.data(name)).all() for name in one.tensors)
    assert {info.file for info in several.tensors.values()} == set(parts)


def test_inspect_and_a_dry_run_show_the_files(source: Path, parts: list[Path]) -> None:
    shown = json.loads(run("inspect", parts[0], "--json").out)
    assert {tensor["file"] for tensor in shown["tensors"]} == {path.name for path in parts}
    target = parts[0].with_name("m.gguf")
    arguments = ["-t", "BF16", "-o", target, "--split-max-size", "1M", "--dry-run", "--json"]
    plan = json.loads(run("convert", source, *arguments).out)["files"][0]
    assert plan["bytes"] == sum(path.stat().st_size for path in parts)
    assert {tensor["file"] for tensor in plan["tensors"]} == {path.name for path in parts}


IDS = [1, 40, 50, 60]


def test_llama_cpp_loads_them(whole: Path, parts: list[Path]) -> None:
    np.testing.assert_array_equal(logits(parts[0], IDS), logits(whole, IDS))


class TestRefusals:
    def test_not_the_first(self, parts: list[Path]) -> None:
        with pytest.raises(GGUFError, match=r"give the first, m-00001-of-00007\.gguf"):
            GGUFFile.open(parts[1])

    def test_one_is_missing(self, parts: list[Path]) -> None:
        parts[2].unlink()
        with pytest.raises(GGUFError, match=r"00003-of-00007\.gguf: missing"):
            GGUFFile.open(parts[0])

    def test_one_is_another(self, parts: list[Path]) -> None:
        shutil.copy(parts[1], parts[2])
        with pytest.raises(GGUFError, match="is not file 2 of 7"):
            GGUFFile.open(parts[0])

    def test_a_tensor_is_in_two(self, parts: list[Path]) -> None:
        third, number = parts[2].read_bytes(), b"split.no\x02\x00\x00\x00"
        assert number + b"\x02\x00" in third
        parts[1].write_bytes(third.replace(number + b"\x02\x00", number + b"\x01\x00"))
        with pytest.raises(GGUFError, match="is in another file of the model too"):
            GGUFFile.open(parts[0])

    def test_a_name_that_is_no_splits(self, parts: list[Path]) -> None:
        renamed = parts[0].rename(parts[0].with_name("model.gguf"))
        with pytest.raises(GGUFError, match="must be called NAME-00001-of-00007"):
            GGUFFile.open(renamed)

    def test_a_file_that_is_there(self, parts: list[Path], source: Path, tmp_path: Path) -> None:
        options = ["-t", "BF16", "-o", tmp_path / "m.gguf", "--split-max-size", "1M"]
        assert "m-00001-of-00007.gguf" in refusal("convert", source, *options, within=tmp_path)

    def test_no_files_to_keep(self, whole: Path, source: Path, parts: list[Path]) -> None:
        kept = Recipe(keep_split=True)
        for one in (lambda: quantize(whole, "x.gguf", kept), lambda: convert(source, "x", kept)):
            with pytest.raises(OptionError, match="is not a GGUF in several files"):
                one()
        both = Recipe(keep_split=True, split_max_size="1M")
        with pytest.raises(OptionError, match="leave one out"):
            quantize(parts[0], "x.gguf", both)

    @pytest.mark.parametrize(
        "size", ["", "4", "4K", "0M", "-1G", "1.5G", -5, 0, True, "9" * 5000 + "G"]
    )
    def test_what_is_no_size(self, size: object) -> None:
        with pytest.raises(OptionError, match=r"\(--split-max-size\): .* write 500M or 4G"):
            parse_size(size)  # type: ignore[arg-type]


def test_sizes() -> None:
    assert [parse_size(s) for s in ("500M", "4g", " 1G ", 77, None)] == [
        500_000_000, 4_000_000_000, 1_000_000_000, 77, 0,
    ]  # fmt: skip


@given(st.lists(st.integers(1, 100), min_size=1), st.integers(1, 300))
def test_groups_are_as_full_as_they_may_be(sizes: list[int], limit: int) -> None:
    groups = group(sizes, limit)
    assert [i for span in groups for i in range(len(sizes))[span]] == list(range(len(sizes)))
    padded = [-(-size // 32) * 32 for size in sizes]
    for span in groups:
        assert sum(padded[span]) <= limit or span.stop - span.start == 1
    for before, after in pairwise(groups):
        assert sum(padded[before]) + padded[after.start] > limit
