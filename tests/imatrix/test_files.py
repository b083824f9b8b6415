"""Both formats there and back, and files that are damaged or of something else."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.imatrix import Entry, ImportanceMatrix, merge, read_imatrix, write_imatrix


def matrix(seed: int = 0, datasets: tuple[str, ...] = ("a.txt",)) -> ImportanceMatrix:
    rng = np.random.default_rng(seed)

    def entry(matrices: int, columns: int) -> Entry:
        counts = rng.integers(1, 5000, matrices)
        return Entry(rng.random((matrices, columns), np.float32) * 100, counts)

    dense = {f"blk.{i}.ffn_up.weight": entry(1, 64) for i in range(3)}
    experts = {"blk.0.ffn_up_exps.weight": entry(4, 32)}
    return ImportanceMatrix(dense | experts, datasets, 9, 512)


def same(a: ImportanceMatrix, b: ImportanceMatrix) -> bool:
    return a.entries.keys() == b.entries.keys() and all(
        np.array_equal(a.entries[name].sums, b.entries[name].sums)
        and np.array_equal(a.entries[name].counts, b.entries[name].counts)
        for name in a.entries
    )


def test_gguf_there_and_back(tmp_path: Path) -> None:
    before = matrix(datasets=("a.txt", "b.txt"))
    write_imatrix(before, tmp_path / "m.gguf")
    after = read_imatrix(tmp_path / "m.gguf")
    assert same(before, after)
    assert (after.datasets, after.chunk_count, after.chunk_size) == (("a.txt", "b.txt"), 9, 512)


def test_legacy_holds_the_means(tmp_path: Path) -> None:
    before = matrix()
    write_imatrix(before, tmp_path / "m.dat")
    after = read_imatrix(tmp_path / "m.dat")
    assert (after.datasets, after.chunk_count, after.chunk_size) == (("a.txt",), 9, 0)
    for name, entry in before.entries.items():
        np.testing.assert_allclose(after.entries[name].values, entry.values, rtol=1e-6)


def test_experts_that_no_token_chose_count_as_one(tmp_path: Path) -> None:
    sums = np.array([[2, 4], [0, 0]], np.float32)
    before = ImportanceMatrix({"blk.0.x.weight": Entry(sums, np.array([2, 0]))}, (), 1, 512)
    assert before.entries["blk.0.x.weight"].values.tolist() == [1, 2, 1, 1]
    assert before.unseen == {"blk.0.x.weight": [1]}
    write_imatrix(before, tmp_path / "m.dat")
    assert read_imatrix(tmp_path / "m.dat").entries["blk.0.x.weight"].values.tolist() == [
        1, 2, 1, 1,
    ]  # fmt: skip


def test_a_merge_adds_tokens() -> None:
    a, b = matrix(1), matrix(2, ("b.txt",))
    whole = merge([a, b])
    assert whole.datasets == ("a.txt", "b.txt")
    for name, entry in whole.entries.items():
        assert np.array_equal(entry.sums, a.entries[name].sums + b.entries[name].sums)
        assert np.array_equal(entry.counts, a.entries[name].counts + b.entries[name].counts)
    most = max(int(entry.counts.max()) for entry in whole.entries.values())
    assert whole.chunk_count == most // 512


def test_a_legacy_file_merges_with_experts(tmp_path: Path) -> None:
    """Its single count stands for every expert."""
    before = matrix()
    write_imatrix(before, tmp_path / "m.dat")
    whole = merge([read_imatrix(tmp_path / "m.dat"), before])
    name = "blk.0.ffn_up_exps.weight"
    assert whole.entries[name].sums.shape == (4, 32)
    assert (whole.entries[name].counts > before.entries[name].counts).all()


def test_matrices_of_two_models_are_not_merged() -> None:
    other = ImportanceMatrix(
        {"blk.0.ffn_up.weight": Entry(np.ones((1, 32), np.float32), np.array([1]))}, (), 1, 512
    )
    with pytest.raises(OptionError, match=r"blk\.0\.ffn_up\.weight has 32 values, and 64"):
        merge([matrix(), other])


def test_entries_are_chosen_by_parts_of_their_names() -> None:
    assert len(matrix().select(include=["ffn_up."]).entries) == 3
    assert len(matrix().select(exclude=["blk.0"]).entries) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_what_is_no_sum_of_squares_is_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "m.dat"
    path.write_bytes(struct.pack("<ii1siif", 1, 1, b"a", 1, 1, value))
    with pytest.raises(GGUFError, match=r"m\.dat: the entry a holds negative"):
        read_imatrix(path)


def test_a_model_is_no_importance_matrix(bf16_gguf: Path) -> None:
    with pytest.raises(GGUFError, match=r"no imatrix\.datasets, so this is not an importance"):
        read_imatrix(bf16_gguf)
    with pytest.raises(GGUFError, match="cannot be read"):
        read_imatrix(bf16_gguf.with_name("none.gguf"))


@pytest.mark.parametrize("suffix", ["gguf", "dat"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    """Whatever stands in a file, reading it ends in a matrix or in a GGUFError."""
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / f"m.{suffix}"
    write_imatrix(matrix(), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 200))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    path.write_bytes(content[:cut])
    with contextlib.suppress(GGUFError):
        read_imatrix(path)
