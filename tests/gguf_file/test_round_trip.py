"""What is laid out is what is read: by our reader, and by the gguf package's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfm2gguf.errors import GGUFError, OutputError
from lfm2gguf.gguf_file import GGUFFile, Value, ValueType, lay_out
from tests.gguf_file.samples import METADATA, TENSORS, write


@pytest.mark.parametrize("alignment", [1, 32, 4096])
def test_our_reader(tmp_path: Path, alignment: int) -> None:
    layout, contents = write(tmp_path / "f.gguf", alignment)
    file = GGUFFile.open(tmp_path / "f.gguf")
    file.metadata.pop("general.alignment", None)
    assert file.metadata == METADATA
    assert list(file.metadata) == list(METADATA)
    assert [t.offset for t in file.tensors.values()] == list(layout.offsets)
    assert [(t.name, t.type, t.shape) for t in file.tensors.values()] == [
        (t.name, t.type, t.shape) for t in TENSORS
    ]
    assert {name: file.data(name).tobytes() for name in file.tensors} == contents
    assert file.path.stat().st_size == layout.size


@pytest.mark.parametrize("alignment", [32, 4096])
def test_the_gguf_package(tmp_path: Path, alignment: int) -> None:
    _, contents = write(tmp_path / "f.gguf", alignment)
    reader = gguf.GGUFReader(tmp_path / "f.gguf")
    for key, value in METADATA.items():
        field = reader.fields[key]
        assert field.contents() == value.value, key
        assert [t.name for t in field.types] == [t.name for t in (value.type, value.item_type) if t]
    for tensor, spec in zip(reader.tensors, TENSORS, strict=True):
        assert (tensor.name, tensor.tensor_type.name) == (spec.name, spec.type.name)
        assert tuple(tensor.shape[::-1]) == spec.shape
        assert tensor.data.tobytes() == contents[spec.name]


def test_a_file_of_the_gguf_package(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "f.gguf", "lfm2")
    writer.add_array("numbers", [1, 2])
    writer.add_array("texts", ["a", ""])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GGUFFile.open(tmp_path / "f.gguf").metadata
    assert (found["numbers"].value, found["texts"].value) == ([1, 2], ["a", ""])
    assert found["texts"].to_bytes() in lay_out(found, ()).header


def test_text_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    text = b"caf\xe9\xff".decode("utf-8", "surrogateescape")
    with lay_out({text: Value(ValueType.STRING, text)}, ()).create(tmp_path / "f.gguf"):
        pass
    file = GGUFFile.open(tmp_path / "f.gguf")
    assert file.metadata == {text: Value(ValueType.STRING, text)}


def arrays(items: st.SearchStrategy[Any], type: ValueType) -> st.SearchStrategy[Value]:
    return st.lists(items, min_size=1, max_size=5).map(lambda x: Value(T.ARRAY, x, type))


def integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low = -(2 ** (bits - 1)) if signed else 0
    return st.integers(low, low + 2**bits - 1)


T = ValueType
ITEMS: dict[ValueType, st.SearchStrategy[Any]] = {
    **{T[f"UINT{n}"]: integers(n, signed=False) for n in (8, 16, 32, 64)},
    **{T[f"INT{n}"]: integers(n, signed=True) for n in (8, 16, 32, 64)},
    T.FLOAT32: st.floats(width=32, allow_nan=False),
    T.FLOAT64: st.floats(allow_nan=False),
    T.BOOL: st.booleans(),
    T.STRING: st.text(max_size=20),
}
VALUES = st.one_of(
    *(st.builds(Value, st.just(type), items) for type, items in ITEMS.items()),
    *(arrays(items, type) for type, items in ITEMS.items()),
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.text(min_size=1, max_size=10).map("k.".__add__), VALUES, max_size=8))
def test_any_metadata(tmp_path: Path, metadata: dict[str, Value]) -> None:
    path = tmp_path / "f.gguf"
    with lay_out(metadata, TENSORS[:1]).create(path, overwrite=True):
        pass
    assert GGUFFile.open(path).metadata == metadata
    fields = gguf.GGUFReader(path).fields
    assert {key: fields[key].contents() for key in metadata} == {
        key: value.value for key, value in metadata.items()
    }


def test_rows(tmp_path: Path) -> None:
    _, contents = write(tmp_path / "f.gguf")
    file = GGUFFile.open(tmp_path / "f.gguf")
    name = "blk.0.attn_v.weight"
    assert file.data(name, 1, 3).tobytes() == contents[name][144:]
    assert file.data(name, 2, 2).shape == (0, 144)


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with lay_out(METADATA, TENSORS).create(tmp_path / "f.gguf"):
            raise GGUFError("in the middle")

    with pytest.raises(GGUFError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_target_is_not_replaced_unasked(tmp_path: Path) -> None:
    target = tmp_path / "f.gguf"
    target.write_text("precious")

    def create(overwrite: bool) -> None:
        with lay_out(METADATA, ()).create(target, overwrite=overwrite):
            assert target.read_text() == "precious"  # until the new one is complete

    with pytest.raises(OutputError, match="exists already"):
        create(overwrite=False)
    assert target.read_text() == "precious"
    create(overwrite=True)
    assert GGUFFile.open(target).metadata == METADATA


LENGTHS = [0, 1, 7, 8, 127, 128, 255, 256, 257, 70_000]
ODD = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["\0", "\0" * 7, "\0" * 8, "\1" + "\0" * 7, "ä" * 127, "\udcff\udc80"]),
    st.sampled_from(LENGTHS).map(lambda n: "x" * n),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ODD, max_size=12), st.lists(ODD, max_size=3))
def test_texts_of_all_lengths(tmp_path: Path, first: list[str], second: list[str]) -> None:
    """Texts of zeros, and of lengths that are zeros themselves, are told apart."""
    file, texts = tmp_path / "f.gguf", ValueType.STRING
    metadata = {
        "first": Value(ValueType.ARRAY, first, texts),
        "second": Value(ValueType.ARRAY, second, texts),
        "last": Value(texts, "end"),
    }
    file.write_bytes(lay_out(metadata, ()).header)
    assert GGUFFile.open(file).metadata == metadata
