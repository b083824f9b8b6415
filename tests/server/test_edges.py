"""The edges of HTTP: what a server does with those who do not play by the rules."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from lfm2gguf import Runner
from lfm2gguf.errors import OptionError
from lfm2gguf.server import create_app
from lfm2gguf.server.edges import (
    LOOPBACK,
    Complaints,
    OnlyHosts,
    Unfinished,
    is_loopback,
    protocol,
)
from lfm2gguf.server.serving import listen
from lfm2gguf_cli.serve import _keys_in
from tests.server.conftest import serving


@contextlib.contextmanager
def listening_for(runner: Runner, header_seconds: float) -> Iterator[int]:
    """Serve on loopback and for a proxy's name; the port."""
    app = OnlyHosts(create_app(runner, name="tiny"), {*LOOPBACK, "proxy.example"})
    config = uvicorn.Config(app, http=protocol(header_seconds), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield int(listening.getsockname()[1])
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def hasty(runner: Runner) -> Iterator[int]:
    with listening_for(runner, 0.5) as port:
        yield port


@pytest.fixture(scope="module")
def port(runner: Runner) -> Iterator[int]:
    with listening_for(runner, 30) as port:
        yield port


GOOD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "begun", [b"", b"GET /hea", GOOD + b"X-a: ", GOOD + b"\r\nANSWERED" + GOOD]
)
def test_a_header_that_never_ends_is_closed(hasty: int, begun: bytes) -> None:
    """Also where bytes come in drops, and behind an answer on the same connection."""
    first, answered, rest = begun.partition(b"ANSWERED")
    with socket.create_connection(("127.0.0.1", hasty), timeout=20) as slow:
        slow.sendall(first)
        if answered:
            answer = b""
            while not answer.endswith(b"}"):
                answer += (piece := slow.recv(1000))
                assert piece
            slow.sendall(rest)
        assert slow.recv(1000) == b""


@pytest.mark.usefixtures("slow")
def test_answers_that_take_longer_than_a_header_stay(hasty: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{hasty}") as client:
        hi = [{"role": "user", "content": "hi"}]
        ask = {"messages": hi, "max_tokens": 400, "ignore_eos": True, "temperature": 2.0}
        answers = [client.post("/v1/chat/completions", json=ask, timeout=60) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8080",
                                  "proxy.example", "localhost."])  # fmt: skip
def test_own_hosts_are_served(port: int, host: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/health", headers={"Host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil",
                                  "evil:80", "[::2]", "a@localhost"])  # fmt: skip
def test_foreign_hosts_are_refused(port: int, host: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/health", headers={"Host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["error"]["message"]


def test_what_the_drain_cuts_off_is_told_so() -> None:
    """It takes longer than the drain: uvicorn alone would say 500, in plain text."""
    taken = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        taken.set()
        await asyncio.sleep(60)

    server = uvicorn.Server(
        uvicorn.Config(
            Unfinished(slow), log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
    )
    answers: list[httpx.Response] = []
    with listen("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/models"
        serve = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        ask = threading.Thread(target=lambda: answers.append(httpx.get(url, timeout=60)))
        serve.start()
        ask.start()
        assert taken.wait(30)
        server.should_exit = True
        ask.join()
        serve.join()
    assert answers[0].status_code == 503
    assert answers[0].json()["error"]["code"] == "unavailable"


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, (*LOOPBACK, "127.3.2.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org")))


def test_no_flood_where_descriptors_run_out(caplog: pytest.LogCaptureFixture) -> None:
    complaints, loop = Complaints(), asyncio.new_event_loop()
    with caplog.at_level(logging.DEBUG):
        for _ in range(5000):
            context = {"message": "socket.accept() out of system resource"}
            complaints(loop, {**context, "exception": OSError(24, "Too many open files")})
        complaints(loop, {"message": "something else"})
    loop.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_several_keys(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\none\n\n  two  \n")
    with serving(runner, api_key=_keys_in(file)) as url:
        codes = {
            key: httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"})
            for key in ("one", "two", "three", "# ours", "onetwo")
        }
    assert [answer.status_code for answer in codes.values()] == [200, 200, 401, 401, 401]


def test_keys_that_are_none(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    for file in (tmp_path / "keys", tmp_path / "nowhere", tmp_path):
        with pytest.raises(OptionError, match="api-key-file"):
            _keys_in(file)
    with pytest.raises(OptionError, match="empty"):
        create_app(runner, api_key="")
