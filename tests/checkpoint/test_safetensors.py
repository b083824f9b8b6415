"""safetensors files: read like the reference implementation reads them, refused where damaged."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.checkpoint.safetensors import read_header
from lfm2gguf.errors import CheckpointError, TensorError, UnsupportedError
from tests.making.checkpoints import Case, config, make, weights, write_raw_safetensors

MEMORY = 20 << 20  # bytes that reading a header of a few kB may take


@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_the_reference_implementation_reads_the_same(dtype: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(make(Case(config(), dtype=dtype), tmp_path / "m"))
    with safetensors.safe_open(tmp_path / "m" / "model.safetensors", "np") as file:
        assert set(file.keys()) == set(checkpoint.tensors)
        for name in file.keys():  # noqa: SIM118
            assert np.array_equal(checkpoint.read(name), file.get_tensor(name).astype(np.float32))


@pytest.mark.parametrize("shards", [1, 3])
def test_bfloat16_and_rows(shards: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(make(Case(config(), shards=shards), tmp_path / "m"))
    for name, x in weights(config()).items():
        cut = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        assert np.array_equal(checkpoint.read(name), cut)
        assert np.array_equal(checkpoint.read(name, 1, 3), cut[1:3])
        assert checkpoint.read(name, 2, 2).shape == (0, *x.shape[1:])


def test_a_name_that_is_not_there(small: Path) -> None:
    with pytest.raises(TensorError, match="'nothing' is missing"):
        Checkpoint.open(small).read("nothing")


def test_another_dtype(tmp_path: Path) -> None:
    header = {"t": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}
    write_raw_safetensors(tmp_path / "m", json.dumps(header).encode(), bytes(4))
    with pytest.raises(UnsupportedError, match="'t' holds I8"):
        read_header(tmp_path / "m")["t"].read()


def entry(begin: int = 0, end: int = 8, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DAMAGED = {
    "not JSON": b"{nonsense",
    "not an object": b"[1, 2]",
    "not UTF-8": b'{"\xff": 1}',
    "nested without end": b"[" * 100_000,
    "the same name twice": b'{"a": 1, "a": 2}',
    "no offsets": {"a": {"dtype": "F32", "shape": [2]}},
    "an entry that is a number": {"a": 7},
    "an unknown dtype": {"a": entry(dtype="F7")},
    "a dtype that is a list": {"a": entry() | {"dtype": []}},
    "a shape that is a number": {"a": entry(shape=2)},
    "a negative size": {"a": entry(shape=[-1, -2])},
    "a size with a point": {"a": entry(shape=[2.0])},
    "one offset": {"a": entry() | {"data_offsets": [0]}},
    "offsets in reverse": {"a": entry(8, 0)},
    "a size that is not the offsets'": {"a": entry(shape=[3])},
    "overlapping tensors": {"a": entry(0, 8), "b": entry(4, 12)},
    "the same place twice": {"a": entry(0, 8), "b": entry(0, 8)},
    "a gap": {"a": entry(0, 8), "b": entry(12, 20)},
    "a gap at the beginning": {"a": entry(8, 16)},
    "past the end": {"a": entry(0, 1 << 40, shape=[1 << 38])},
    "bytes left over": {"a": entry(0, 8)},
    "huge sizes": {"a": entry(0, 0, shape=[1 << 62, 1 << 62, 0])},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name: str, tmp_path: Path) -> None:
    content = DAMAGED[name]
    header = content if isinstance(content, bytes) else json.dumps(content).encode()
    write_raw_safetensors(tmp_path / "m.safetensors", header, bytes(16))
    with pytest.raises(CheckpointError) as caught:
        read_header(tmp_path / "m.safetensors")
    assert "m.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [100, 1 << 20, 1 << 63, 2**64 - 1])
def test_a_header_of_absurd_length(length: int, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(CheckpointError, match="truncated"):
        read_header(tmp_path / "m")


def test_a_header_longer_than_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "m").open("wb") as file:  # sparse: takes no room on the disk
        file.write(struct.pack("<Q", 1 << 30))
        file.truncate(2 << 30)
    with pytest.raises(CheckpointError, match="longer than"):
        read_header(tmp_path / "m")


def read_or_refuse(path: Path, data: bytes) -> bool:
    """Whether the file could be read; only a CheckpointError of one line is a refusal."""
    path.write_bytes(data)
    refused = ""
    tracemalloc.start()
    try:
        for info in read_header(path).values():
            if info.dtype in ("BF16", "F16", "F32") and info.shape:
                info.read()
    except CheckpointError as error:
        refused = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY
    assert "\n" not in refused
    return not refused


def test_every_truncation_is_refused(small: Path, tmp_path: Path) -> None:
    data = (small / "model.safetensors").read_bytes()
    for n in [*range(100), *range(100, len(data), 1009), len(data) - 1]:
        assert not read_or_refuse(tmp_path / "m", data[:n]), n


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 420), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes(small: Path, tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray((small / "model.safetensors").read_bytes())
    for at, byte in changes:
        damaged[at] = byte
    read_or_refuse(tmp_path / "m", bytes(damaged))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__"]), inner),
))  # fmt: skip
def test_any_json(tmp_path: Path, content: Any) -> None:
    header = json.dumps({"t": content}).encode()
    read_or_refuse(tmp_path / "m", struct.pack("<Q", len(header)) + header + bytes(16))
