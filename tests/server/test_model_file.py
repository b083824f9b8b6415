"""What becomes of the model's file while it is served does not matter."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.making.models import tiny_gguf
from tests.making.serving import Process, served


def cut(path: Path) -> None:
    os.truncate(path, 100_000)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(200_000)
        file.write(bytes(path.stat().st_size - 200_000))


def asked(server: Process, words: str) -> str:
    body = {"messages": [{"role": "user", "content": words}], "temperature": 0, "max_tokens": 16}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be changed there")
@pytest.mark.parametrize("change", [cut, overwritten])
def test_answers_stay_what_they_are(change: Callable[[Path], None], tmp_path: Path) -> None:
    model = Path(shutil.copy(tiny_gguf(), tmp_path / "m.gguf"))
    with served(model, "--threads", "1", "--device", "cpu") as server:
        questions = ("What is a class?", "What does str.split do?")
        before = asked(server, questions[0])
        change(model)
        assert asked(server, questions[0]) == before
        assert asked(server, questions[1])
        assert server.alive
