"""Files of which llama.cpp ends the process are refused before, by rule or by trial."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf import Runner, convert, diagnose, quantize
from lfm2gguf.errors import GGUFError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import GGUFFile, Value, ValueType
from lfm2gguf.loadable import Contents, check_loadable, problems
from lfm2gguf.loadable.trial import FOLDER, VARIABLE
from tests.doctor.operations import Change, rewrite

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


def key(name: str, type: str, value: object) -> Change:
    return Change({name: Value(ValueType[type], value)})


def vector(type: str, dtype: str) -> Change:
    return Change(tensors={"blk.0.ffn_norm.weight": (GGMLType[type], np.ones(64, dtype))})


# What llama.cpp does of each was seen in a process of its own: see the test below.
DEADLY = {
    "lfm2.block_count": key("lfm2.block_count", "UINT32", 0),
    "lfm2.attention.layer_norm_rms_epsilon": key(
        "lfm2.attention.layer_norm_rms_epsilon", "FLOAT32", -1.0
    ),
    "layer_norm_rms_epsilon is nan": key(
        "lfm2.attention.layer_norm_rms_epsilon", "FLOAT32", math.nan
    ),
    "lfm2.expert_used_count is 0 of 8": key("lfm2.expert_count", "UINT32", 8),
    "lfm2.expert_used_count is more": key("lfm2.expert_used_count", "UINT32", 4),
    "lfm2.expert_count is 5000": key("lfm2.expert_count", "UINT32", 5000),
    "lfm2.rope.scaling.type": key("lfm2.rope.scaling.type", "STRING", "foo"),
    "lfm2.rope.dimension_count is 100": key("lfm2.rope.dimension_count", "UINT32", 100),
    "lfm2.rope.dimension_count is 7": key("lfm2.rope.dimension_count", "UINT32", 7),
    "blk.0.ffn_norm.weight is I32": vector("I32", "<i4"),
    "blk.0.ffn_norm.weight is F16": vector("F16", "<f2"),
}
# Where llama.cpp has a message, or our own code would ask for what is not there.
REFUSED = {
    "general.file_type is string": key("general.file_type", "STRING", "Q8_0"),
    "general.name is uint32": key("general.name", "UINT32", 7),
    "lfm2.block_count is 10000": key("lfm2.block_count", "UINT32", 10000),
    "padding_token_id is 65536": key("tokenizer.ggml.padding_token_id", "UINT32", 65536),
    "lfm2.attention.value_length": key("lfm2.attention.value_length", "UINT32", 8),
    "lfm2.pooling_type": key("lfm2.pooling_type", "UINT32", 77),
}


@pytest.fixture(scope="module")
def sound(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loadable")
    return convert(small, folder / "sound.gguf", "F32", jobs=1).files[0].path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trial turned on, with a cache of its own."""
    monkeypatch.setenv("LFM2GGUF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE)
    return tmp_path / "cache" / FOLDER


@pytest.fixture
def no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had foreseen anything."""
    monkeypatch.setattr("lfm2gguf.loadable.check.problems", lambda _: iter(()))


@pytest.mark.parametrize("said", DEADLY | REFUSED)
def test_what_is_known_is_refused_by_name(said: str, sound: Path, tmp_path: Path) -> None:
    path = rewrite(sound, tmp_path / "a.gguf", (DEADLY | REFUSED)[said])
    with pytest.raises(GGUFError, match=said):
        Runner(path)


@pytest.mark.parametrize("said", DEADLY)
def test_what_nobody_foresaw_is_an_error(
    said: str, sound: Path, tmp_path: Path, cache: Path, no_rules: None
) -> None:
    """It is each rule's witness, too: without it llama.cpp ends the process."""
    path = rewrite(sound, tmp_path / "a.gguf", DEADLY[said])
    with pytest.raises(GGUFError, match=r"a\.gguf: llama\.cpp ends the process with it \(.+\);"):
        check_loadable(GGUFFile.open(path))
    assert not cache.exists()


def test_a_token_twice(sound: Path, tmp_path: Path, cache: Path, no_rules: None) -> None:
    file = GGUFFile.open(sound)
    tokens = file.metadata["tokenizer.ggml.tokens"]
    twice = [tokens.value[21], *tokens.value[1:]]
    change = Change({"tokenizer.ggml.tokens": Value(tokens.type, twice, tokens.item_type)})
    path = rewrite(sound, tmp_path / "a.gguf", change)
    opened = GGUFFile.open(path)
    assert [problem.code for problem in problems(Contents.of(opened))] == ["token-twice"]
    with pytest.raises(GGUFError, match=r"ends the process with it \(.*GGML_ASSERT"):
        check_loadable(opened)


def test_weights_that_begin_where_none_can_be_mapped(
    sound: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alignment of 1 is sound GGUF, which llama-quantize keeps; here its copy can be loaded."""
    odd = {"general.alignment": Value(ValueType.UINT32, 1)}
    for n in range(2):  # one of two headers has an odd length
        odd["general.description"] = Value(ValueType.STRING, "x" * n)
        path = rewrite(sound, tmp_path / "odd.gguf", Change(odd))
        if min(tensor.offset for tensor in GGUFFile.open(path).tensors.values()) % 2:
            break
    assert "alignment" in [finding.id for finding in diagnose(path).findings]
    with pytest.raises(GGUFError, match="alignment is 1, and the weights begin at byte"):
        check_loadable(GGUFFile.open(path))
    (written,) = quantize(path, tmp_path / "out.gguf", "F32")
    check_loadable(GGUFFile.open(written.path))
    monkeypatch.setattr("lfm2gguf.loadable.check.problems", lambda _: iter(()))
    with pytest.raises(GGUFError, match=r"ends the process with it \(.*must be aligned"):
        check_loadable(GGUFFile.open(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.write_bytes(path.read_bytes() + bytes(32)),
        lambda path: path.rename(path.with_name("b.gguf")),
    ],
    ids=["time", "size", "name"],
)
def test_a_file_is_tried_once(
    change: Callable[[Path], object], sound: Path, tmp_path: Path, cache: Path
) -> None:
    path = rewrite(sound, tmp_path / "a.gguf", Change())
    for _ in range(2):
        check_loadable(GGUFFile.open(path))
        (first,) = cache.iterdir()
    change(path)
    check_loadable(GGUFFile.open(next(tmp_path.glob("*.gguf"))))
    assert len(list(cache.iterdir())) == 2
    assert first.exists()


def test_it_can_be_turned_off(
    sound: Path, cache: Path, no_rules: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    path = rewrite(sound, tmp_path / "a.gguf", DEADLY["lfm2.block_count"])
    check_loadable(GGUFFile.open(path))  # what would be loaded next would end this process
    assert not cache.exists()


def test_a_cache_that_cannot_be_written(sound: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    check_loadable(GGUFFile.open(sound))


def test_the_library_is_not_needed_for_the_rules() -> None:
    code = "import sys, lfm2gguf.loadable; assert 'llama_cpp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
