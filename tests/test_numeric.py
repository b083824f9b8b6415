"""What the public functions take as a number is one, or is refused by name."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lfm2gguf
from lfm2gguf import server
from lfm2gguf.bench import Settings
from lfm2gguf.errors import OptionError
from lfm2gguf.imatrix import merge
from lfm2gguf.numeric import check_numbers, numbers_checked
from lfm2gguf.verification import Engine, Limits, Material
from tests.making.models import tiny_gguf

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
KINDS = "int", "float", "int | None", "float | None"
FUNCTIONS = {
    name: value
    for name in lfm2gguf.__all__
    if inspect.isfunction(value := getattr(lfm2gguf, name)) or value is lfm2gguf.Runner
}
TAKEN = [
    (name, parameter.name, str(parameter.annotation))
    for name, function in FUNCTIONS.items()
    for parameter in inspect.signature(function).parameters.values()
    if str(parameter.annotation) in KINDS
]


def test_there_are_some() -> None:
    assert {name for name, *_ in TAKEN} >= {"Runner", "calibrate", "convert", "quantize", "publish"}


@pytest.mark.parametrize(("function", "name", "kind"), TAKEN)
def test_what_is_no_number_is_refused(function: str, name: str, kind: str) -> None:
    signature = inspect.signature(FUNCTIONS[function])
    needed = {p.name: "nothing" for p in signature.parameters.values() if p.default is p.empty}
    wrong = ["2", b"2", [1], True, np.array([1, 2]), *([2.5] if "int" in kind else [])]
    wrong += [] if kind.endswith("None") else [None]
    for value in wrong:
        given: dict[str, Any] = needed | {name: value}
        with pytest.raises(OptionError, match=rf"^{name} is .*: it must be a (whole )?number$"):
            FUNCTIONS[function](**given)


def test_plans_and_texts(small: Path, tmp_path: Path) -> None:
    for name in ("chunks", "ctx"):
        with pytest.raises(OptionError, match=f"{name} is '2'"):
            Material(**{name: "2"})  # type: ignore[arg-type]
    for value, name in (
        (lfm2gguf.Budget, "kld"),
        (Limits, "max_kld"),
        (Engine, "threads"),
        (Settings, "runs"),
        (server.Limits, "seconds"),
    ):
        with pytest.raises(OptionError, match=f"{name} is '2'"):
            value(**{name: "2"})
    with pytest.raises(OptionError, match="chunk_size is '2'"):
        merge([], "2")  # type: ignore[arg-type]
    with lfm2gguf.Runner(tiny_gguf(), device="cpu", threads=1) as lfm:
        with pytest.raises(OptionError, match="max_rounds is '2'"):
            lfm.run_tools("Hi", [], max_rounds="2")  # type: ignore[arg-type]
        with pytest.raises(OptionError, match=r"max_rounds is 2\.5"):
            asyncio.run(lfm.arun_tools("Hi", [], max_rounds=2.5))  # type: ignore[arg-type]
    plan = lfm2gguf.plan(small, tmp_path / "x.gguf", "Q8_0")
    with pytest.raises(OptionError, match="jobs is '2'"):
        plan.write(jobs="2")  # type: ignore[arg-type]


def test_numpys_numbers_are_numbers() -> None:
    annotations = {"n": "int", "x": "float | None"}
    check_numbers(annotations, {"n": np.int32(2), "x": np.float32(1), "other": "2"})
    check_numbers(annotations, {"n": 2, "x": None})


def test_wrong_names_are_told_by_the_function() -> None:
    @numbers_checked
    def some(n: int = 1) -> int:
        return n

    assert some(2) == 2
    with pytest.raises(TypeError, match=r"some\(\) got an unexpected"):
        some(m=2)  # type: ignore[call-arg]
