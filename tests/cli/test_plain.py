"""Numbers that are read without Typer's conversion: what it would make of them."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.core import TyperCommand
from typer.testing import CliRunner

from lfm2gguf_cli.nearest import Command

TEXTS = [
    *("0", "7", "-3", "007", "10", "11", "-0", "+4", "1_000", " 5", "0x10", "9" * 30, "\u0663"),
    *("1.5", "1.", ".5", "5.0", "1e3", "nan", "inf", "0.1234567890123456789", "1,5", "", "abc"),
]


def said(cls: type[TyperCommand], *words: str) -> tuple[int, str]:
    app = typer.Typer(rich_markup_mode=None)

    @app.command(cls=cls)
    def command(
        count: Annotated[int | None, typer.Option(min=-3, max=10)] = None,
        some: Annotated[int, typer.Option()] = 4,
        share: Annotated[float, typer.Option(min=0.001)] = 600,
        any_share: Annotated[float | None, typer.Option()] = None,
    ) -> None:
        print(repr((count, some, share, any_share)))

    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("option", ["--count", "--some", "--share", "--any-share"])
def test_numbers_are_what_typer_makes_of_them(option: str, text: str) -> None:
    words = f"{option}={text}"
    assert said(Command, words) == said(TyperCommand, words)


def test_defaults_have_their_options_kind() -> None:
    assert said(Command) == said(TyperCommand) == (0, "(None, 4, 600.0, None)\n")
