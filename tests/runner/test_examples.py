"""The examples in the words are run as they stand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.models import tiny_gguf

PAGE = Path(__file__).parents[2] / "examples" / "running" / "README.md"
PYTHON = re.compile(r"^## (.+?)$|^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    title = ""
    for match in PYTHON.finditer(PAGE.read_text("utf-8")):
        title = match[1] or title
        if match[2]:
            found.append((title, match[2]))
    return found


def test_all_are_found() -> None:
    titles = {title for title, _ in examples()}
    assert titles == {"Chat", "Streaming", "Tools", "Many at once", "Async", "Devices"}


@pytest.mark.parametrize(("title", "code"), examples(), ids=lambda value: value[:12])
def test_an_example(title: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, title, "exec"), {"MODEL": os.fspath(tiny_gguf()), "__name__": "example"})
    assert capsys.readouterr().out or title == "Tools"
