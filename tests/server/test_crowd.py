"""A hundred clients, half of whom leave; the command, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from lfm2gguf import Runner
from tests.making.models import tiny_gguf
from tests.making.runners import wait_until
from tests.server.conftest import wait_until_idle

CLIENTS, ROUNDS = 100, 3


def body(i: int, *, stream: bool = False) -> dict[str, Any]:
    """A request with an answer that is its own: a mix-up would be seen."""
    schema = {"name": "own", "schema": {"enum": [f"the answer of client {i}"]}}
    return {
        "messages": [{"role": "user", "content": f"What does method {i % 7} of a class do?"}],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "temperature": 0,
        "stream": stream,
    }


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_hundred_clients_half_of_whom_leave(runner: Runner, url: str) -> None:
    address = f"{url}/v1/chat/completions"
    draw = random.Random(1)

    async def one(client: httpx.AsyncClient, i: int, leaves: float | None) -> str:
        request = client.post(address, json=body(i), timeout=120)
        if leaves is None:
            (choice,) = (await request).json()["choices"]
            assert json.loads(choice["message"]["content"]) == f"the answer of client {i}"
            return "was served"
        try:
            await asyncio.wait_for(request, leaves)
        except asyncio.TimeoutError:
            return "left"
        return "was served before it left"

    async def crowd() -> list[str]:
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(limits=limits) as client:
            leaving = [draw.uniform(0.01, 0.5) if i % 2 else None for i in range(CLIENTS)]
            return await asyncio.gather(*(one(client, i, t) for i, t in enumerate(leaving)))

    sizes = []
    for _ in range(ROUNDS):
        ends = asyncio.run(crowd())
        assert sum(end == "left" for end in ends) > CLIENTS / 10
        wait_until_idle(runner)
        sizes.append(resident())
    assert sizes[-1] - sizes[0] < 30e6, sizes
    load = runner.load
    assert (load.running, load.waiting) == (0, 0)
    together = [runner.stream("Still all places?", max_tokens=4) for _ in range(runner.parallel)]
    assert all(stream.wait().usage.completion_tokens for stream in together)


class Command:
    """``lfm2gguf serve`` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lfm2gguf_cli.main", "serve", str(tiny_gguf()), "--port", "0",
             "--device", "cpu", "--threads", "1", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def end(self, number: int) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode


def refuses(url: str) -> bool:
    """Whether a server takes no connection any more."""
    try:
        httpx.get(f"{url}/models", timeout=60)
    except (httpx.NetworkError, httpx.RemoteProtocolError):
        return True
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_sigterm_lets_answers_end(tmp_path: Path) -> None:
    command = Command("--name", "it")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", command.url)
    assert httpx.get(f"{command.url}/models").json()["data"][0]["id"] == "it"
    asked = {"messages": body(0)["messages"], "max_tokens": 400, "ignore_eos": True}
    with httpx.stream(
        "POST", f"{command.url}/chat/completions", json={**asked, "stream": True}, timeout=60
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(command.url))  # who comes now is not let in
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert sum("content" in line for line in rest) > 300
    command.process.communicate(timeout=60)
    assert command.process.returncode == 0


ENDED_AT_ONCE = """
import os, runpy, signal, uvicorn
made = uvicorn.Config
def config(*arguments, **options):
    os.kill(os.getpid(), signal.{name})
    return made(*arguments, **options)
uvicorn.Config = config
runpy.run_module("lfm2gguf_cli.main", run_name="__main__")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_one_that_is_ended_when_its_address_is_known(name: str, code: int, tmp_path: Path) -> None:
    """And before uvicorn listens to signals: SIGTERM was lost."""
    (tmp_path / "start.py").write_text(ENDED_AT_ONCE.format(name=name))
    command = [sys.executable, str(tmp_path / "start.py"), "serve", str(tiny_gguf()), "--port", "0"]
    command += ["--device", "cpu", "--drain-seconds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert done.stdout.endswith("/v1\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_ctrl_c_ends_the_command() -> None:
    assert Command().end(signal.SIGINT) == 130


def test_what_the_command_refuses() -> None:
    ask = [sys.executable, "-m", "lfm2gguf_cli.main", "serve"]
    for arguments, message in (
        (["nothing.gguf"], "no such file"),
        ([str(tiny_gguf()), "--host", "nowhere.invalid"], "cannot listen"),
    ):
        done = subprocess.run([*ask, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") <= 2
