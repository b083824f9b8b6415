"""Sources that are cut, written or removed while they are read: an error, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lfm2gguf import convert, quantize, verify
from lfm2gguf.conversion import plan, plan_adapter
from lfm2gguf.errors import TensorError
from lfm2gguf.progress import Progress
from lfm2gguf.verification import Engine, Material
from tests.making.adapters import CASES, make_adapter, make_base

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-lfm2"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(64))


def rewrite(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-8] + bytes(8))
    os.utime(path, ns=(1, 1))  # the clock of the file system may be coarse


CHANGES = [cut, grow, rewrite, Path.unlink]
Change = Callable[[Path], None]
changes = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


def once(change: Change, path: Path) -> Callable[[Progress], None]:
    """A progress callback that changes a file when the first part of it has been read."""
    left = [path]
    return lambda _: change(left.pop()) if left else None


@changes
def test_a_checkpoint_that_changes(change: Change, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    progress = once(change, checkpoint / "model.safetensors")
    with pytest.raises(TensorError, match=r"model\.safetensors: was changed or removed meanwhile"):
        convert(checkpoint, tmp_path / "out", ["Q8_0", "Q4_0"], jobs=1, progress=progress)
    assert not list((tmp_path / "out").iterdir())


@changes
def test_a_gguf_that_changes(change: Change, checkpoint: Path, tmp_path: Path) -> None:
    source = convert(checkpoint, tmp_path / "a.gguf", "F32").files[0].path
    (tmp_path / "out").mkdir()
    with pytest.raises(TensorError, match=r"a\.gguf: was changed or removed meanwhile"):
        quantize(source, tmp_path / "out", "Q8_0", jobs=1, progress=once(change, source))
    assert not list((tmp_path / "out").iterdir())


def test_between_plan_and_writing(checkpoint: Path, tmp_path: Path) -> None:
    planned = plan(checkpoint, tmp_path / "a.gguf", "F32")
    rewrite(checkpoint / "config.json")
    with pytest.raises(TensorError, match="it was written while it was read"):
        planned.write()
    assert not list(tmp_path.glob("a.gguf*"))


@pytest.mark.parametrize("engine", ["numpy", "llama.cpp"])
@pytest.mark.parametrize("which", ["reference", "candidate"])
def test_while_it_is_verified(which: str, engine: str, tmp_path: Path) -> None:
    reference = convert(EXAMPLE, tmp_path / "r.gguf", "BF16").files[0].path
    candidate = convert(EXAMPLE, tmp_path / "c.gguf", "Q8_0").files[0].path
    changed = reference if which == "reference" else candidate
    material = Material(chunks=1, ctx=64, cache=False)
    with pytest.raises(TensorError, match=f"{changed.name}: was changed or removed meanwhile"):
        verify(
            candidate, reference, material=material, engine=Engine(engine),
            progress=once(rewrite, changed),
        )  # fmt: skip


@changes
def test_an_adapter_that_changes(change: Change, tmp_path: Path) -> None:
    base = make_base(CASES["plain"], tmp_path / "base")
    adapter = make_adapter(CASES["plain"], tmp_path / "adapter")
    planned = plan_adapter(adapter, base, tmp_path / "a.gguf")
    change(adapter / "adapter_model.safetensors")
    with pytest.raises(TensorError, match="was changed or removed meanwhile"):
        planned.write()
    assert not list(tmp_path.glob("a.gguf*"))
