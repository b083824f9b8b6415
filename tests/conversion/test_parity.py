"""Whole files against what llama.cpp's two programs wrote (golden/make_llama_cpp.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import GGUFFile, convert, quantize
from lfm2gguf.conversion import plan
from tests.golden.summary import digest, value
from tests.making.checkpoints import CASES, REAL, make, real
from tests.making.realdata import needs, path_of

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/llama_cpp.json").read_text(encoding="utf-8"))["cases"]


def check(path: Path, type: str, golden: dict[str, Any]) -> None:
    """Compare part by part, so that a difference says where it is; then the whole."""
    file, expected = GGUFFile.open(path), golden["files"][type]
    metadata = {
        key: value([t.name for t in (v.type, v.item_type) if t], v.value)
        for key, v in file.metadata.items()
    }
    assert metadata.pop("general.file_type") == expected["general.file_type"]
    assert metadata == golden["metadata"]
    assert list(metadata) == list(golden["metadata"])
    assert list(file.metadata)[-1] == "general.file_type"
    assert list(file.tensors) == list(golden["tensors"])
    assert [t.type.name for t in file.tensors.values()] == expected["types"]
    for name, known in golden["tensors"].items():
        info = file.tensors[name]
        assert list(info.shape) == known["shape"], name
        assert digest(file.data(name).tobytes()) == known[info.type.name], name
    assert digest(path.read_bytes()) == expected["sha256"]


@pytest.fixture(scope="module", params=CASES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A case's golden values, and its files of every type, from one reading."""
    source = tmp_path_factory.mktemp("parity") / request.param
    make(CASES[request.param], source)
    golden = GOLDEN[request.param]
    files = convert(source, source, list(golden["files"]), jobs=1).files
    return golden, {file.type: file.path for file in files}


def test_every_type_is_what_llama_quantize_writes(written: Any) -> None:
    golden, paths = written
    assert set(paths) == set(golden["files"])
    for type, path in paths.items():
        check(path, type, golden)


def test_in_two_steps_as_with_llama_cpp(written: Any, tmp_path: Path) -> None:
    """A file that keeps all of the weights is quantized to the same bytes in a second step."""
    golden, paths = written
    for whole in {"F32", CASES[paths["F32"].parent.name].dtype}:
        for file in quantize(paths[whole], tmp_path, ["Q4_K_M", "Q6_K", "Q8_0", "Q4_0"], jobs=1):
            check(file.path, file.type, golden)
            file.path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in REAL])
def test_the_real_tokenizers(name: str, tmp_path: Path) -> None:
    source = make(real(path_of(name)), tmp_path / name)
    target = tmp_path / "file.gguf"
    convert(source, target, "BF16", jobs=1)
    check(target, "BF16", GOLDEN[name])


def test_a_plan_needs_no_weights(tmp_path: Path) -> None:
    """The header of a draft is the one of the file, though the weights are all zero."""
    name = "LFM2-rows-of-256"
    source = make(CASES[name], tmp_path / name)
    (drafted,) = plan(source, tmp_path, ["Q4_K_M"]).drafts
    convert(source, tmp_path, ["Q4_K_M"], jobs=1)
    header = drafted.layout.header
    assert drafted.target.read_bytes().startswith(header)
    assert drafted.target.stat().st_size == drafted.layout.size
