"""Values that are kept as they are: what Typer makes of them, and its words for the rest."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperCommand
from typer.main import get_command

from lfm2gguf_cli.nearest import Command


class Color(str, Enum):
    """A choice."""

    RED = "red"


def command(
    source: str,
    more: Annotated[list[str] | None, typer.Argument()] = None,
    text: str | None = None,
    name: str = "x",
    types: list[str] | None = None,
    folders: list[Path] | None = None,
    folder: Path | None = None,
    jobs: Annotated[int | None, typer.Option(min=1)] = None,
    chunks: Annotated[int, typer.Option(min=0)] = 16,
    rate: float = 0.5,
    share: Annotated[float, typer.Option(parser=lambda text: float(text) / 100)] = 5.0,
    quiet: bool = False,
    trial: Annotated[bool, typer.Option("--trial/--no-trial")] = True,
    color: Color = Color.RED,
    words: Annotated[str | None, typer.Option(envvar="LFM2GGUF_TEST_WORDS")] = None,
) -> None:
    """Take a parameter of each kind."""


def parse(kind: type[TyperCommand], arguments: list[str]) -> dict[str, Any] | str:
    """Return the values that a command gets, or the words with which it refuses them."""
    app = typer.Typer(add_completion=False)
    app.command(cls=kind)(command)
    try:
        return get_command(app).make_context("test", list(arguments)).params
    except Exception as error:
        return f"{type(error).__name__}: {getattr(error, 'message', error)}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        ["", "b", "c"],
        ["a", "--text", "", "--name", "ä\udcff"],
        ["a", "--types", "Q4_K_M", "--types", "Q8_0"],
        ["a", "--folders", "x", "--folders", "y", "--folder", "z"],
        ["a", "--jobs", "2", "--chunks", "0", "--rate", "1e-3", "--share", "50"],
        ["a", "--quiet", "--no-trial", "--color", "red"],
        [],
        ["a", "--jobs", "0"],
        ["a", "--chunks", "many"],
        ["a", "--rate", ""],
        ["a", "--color", "blue"],
        ["a", "--share", "all"],
        ["a", "--text"],
    ],
)
def test_values_are_typers(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (None, "said elsewhere"):
        if words:
            monkeypatch.setenv("LFM2GGUF_TEST_WORDS", words)
        kept, typers = parse(Command, arguments), parse(TyperCommand, arguments)
        assert kept == typers
        if isinstance(kept, dict) and isinstance(typers, dict):
            assert {n: type(v) for n, v in kept.items()} == {n: type(v) for n, v in typers.items()}
