"""The client, against servers that speak the protocol well and badly."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest

from lfm2gguf.bench import benchmark
from lfm2gguf.bench.cells import Cell
from lfm2gguf.bench.machine.processes import listener
from lfm2gguf.bench.metrics import CHUNKS, TOKENIZER, USAGE
from lfm2gguf.bench.sources.endpoint import Endpoint
from lfm2gguf.bench.sources.token_counter import Counter
from lfm2gguf.bench.suite import Suite
from lfm2gguf.bench.workloads import workload
from lfm2gguf.errors import EndpointError, OptionError
from tests.bench.fake_server import Behaviour, serving
from tests.making.models import tiny_gguf

pytest.importorskip("httpx", reason="httpx (the extra bench) is not installed")
CHAT = Cell("workloads", "chat", 31, 100)
WORDS = len(workload("chat").messages(0)[0]["content"].split())


def asked(behaviour: Behaviour, cell: Cell = CHAT, **arguments: Any) -> Any:
    with serving(behaviour) as url:
        source = Endpoint(url, **arguments)
        source.prepare(cell)
        measured = source.measure(cell, list(range(cell.concurrency)))
        source.close()
    return source, measured


def test_the_clock_is_the_clients() -> None:
    _, (m,) = asked(Behaviour(first=0.2, between=0.05, ends_after=21))
    assert (m.prompt_tokens, m.output_tokens, m.steps, m.counted) == (WORDS + 5, 21, 20, USAGE)
    assert m.first >= 0.2
    assert m.last >= 0.2 + 20 * 0.05
    assert m.last - m.first > 10 * 0.05  # a busy machine may read the first one late
    assert m.total >= m.last
    assert m.cached_tokens is None


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
def test_thinking_counts_as_output(field: str) -> None:
    _, (m,) = asked(Behaviour(text_field=field))
    assert m.output_tokens == 100


def test_several_tokens_in_a_chunk_are_several_tokens() -> None:
    _, (m,) = asked(Behaviour(tokens_per_chunk=10))
    assert (m.output_tokens, m.steps) == (100, 99)


def test_cached_tokens_are_the_servers_word() -> None:
    _, (m,) = asked(Behaviour(cached=12))
    assert m.cached_tokens == 12


def test_all_requests_of_a_run_are_under_way_at_once() -> None:
    behaviour, cell = Behaviour(ends_after=3), Cell("workloads", "chat", 31, 100, 4)
    with serving(behaviour) as url:
        source = Endpoint(url)
        source.prepare(cell)
        behaviour.together = 4
        measured = source.measure(cell, list(range(4)))
        source.close()
    assert len(measured) == behaviour.most_at_once == 4


def test_without_usage_chunks_are_counted_and_that_is_said() -> None:
    source, (m,) = asked(Behaviour(usage=False))
    assert (m.prompt_tokens, m.output_tokens, m.counted) == (None, 100, CHUNKS)
    assert "MODEL.gguf" in source.notes["chunks"]


def test_without_usage_a_file_counts() -> None:
    counter = Counter(tiny_gguf())
    source, (m,) = asked(Behaviour(usage=False, tokens_per_chunk=50), counter=counter)
    words = counter.text("word " * 100)
    counter.close()
    assert (m.output_tokens, m.counted) == (words, TOKENIZER)
    assert m.prompt_tokens > 20
    assert "chunks" not in source.notes


@pytest.mark.parametrize(
    ("refused", "sent"),
    [
        ((), {"ignore_eos", "stream_options", "cache_prompt", "repeat_penalty"}),
        (("ignore_eos",), {"stream_options"}),
        (("stream_options",), {"ignore_eos", "cache_prompt", "repeat_penalty"}),
        (("stream_options", "cache_prompt"), set()),
    ],
)
def test_a_server_is_asked_for_no_more_than_it_takes(
    refused: tuple[str, ...], sent: set[str]
) -> None:
    behaviour = Behaviour(refused=refused)
    source, _ = asked(behaviour)
    always = {"model", "messages", "max_tokens", "temperature", "stream"}
    assert behaviour.asked[-1].keys() - always == sent
    assert behaviour.asked[-1]["temperature"] == 0
    assert ("extras" in source.notes) == ("ignore_eos" not in sent)


def test_a_server_that_refuses_everything() -> None:
    with pytest.raises(EndpointError, match="status 400: unknown field stream"):
        asked(Behaviour(refused=("stream",)))


def test_early_ends_and_single_pieces_are_said() -> None:
    source, _ = asked(Behaviour(ends_after=40))
    assert "before the wanted length" in source.notes["length"]
    source, (m,) = asked(Behaviour(in_one_piece=True))
    assert "one piece" in source.notes["stream"]
    assert m.steps == 0


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (Behaviour(raw=b"data: {not json\n\n"), "is not JSON"),
        (Behaviour(raw=b"data: [1]\n\n"), r"holds '\[1\]'"),
        (Behaviour(raw=b"data: [DONE]\n\n"), "empty"),
        (Behaviour(raw=b""), "empty"),
        (Behaviour(raw=b'data: {"error": {"message": "out of memory"}}\n\n'), "out of memory"),
        (Behaviour(raw=b"<h1>Bad gateway</h1>", status=502), "502: <h1>Bad gateway"),
        (Behaviour(key="secret"), "401: wrong key"),
        (Behaviour(models=None), "--model"),
        (Behaviour(models={"data": []}), "--model"),
        (Behaviour(models=["x"]), "--model"),
    ],
)
def test_failures_are_one_sentence(behaviour: Behaviour, message: str) -> None:
    with pytest.raises(EndpointError, match=message):
        asked(behaviour)


def test_a_key_and_a_name_are_sent() -> None:
    behaviour = Behaviour(key="secret", models=None)
    asked(behaviour, api_key="secret", model="mine")
    assert behaviour.asked[-1]["model"] == "mine"


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(EndpointError, match="cannot be reached"):
            Endpoint(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8080", "ftp://host", "", "http://", "http://[::1", "http://[zz]:80",
     "http://a:99999", "http://a:b", "http://a/\n"],
)  # fmt: skip
def test_no_address(url: str) -> None:
    with pytest.raises(OptionError, match="not an address"):
        Endpoint(url)


def test_a_password_in_the_address_is_used_and_never_shown() -> None:
    with serving(Behaviour(key="me:pass-word")) as url:
        there = url.replace("//", "//me:pass-word@")
        report = benchmark(endpoint=there, workloads=["chat"], runs=2, warm_ups=0, probes=False)
    said = json.dumps(report.to_json())
    assert url in said
    for bad in (there, there.replace("http:", "ftp:"), "http://me:pass-word@host:99999"):
        with pytest.raises((EndpointError, OptionError)) as error:
            Endpoint(bad)
        said += str(error.value)
    assert "pass-word" not in said


@pytest.mark.parametrize("key", ["\N{EM DASH}", "a\nb"])
def test_a_key_that_no_header_holds(key: str) -> None:
    with pytest.raises(OptionError, match="api_key"):
        Endpoint("http://127.0.0.1:9", api_key=key)


@pytest.mark.parametrize("cache", [False, True])
def test_prompts_are_alike_only_where_a_cache_shall_work(cache: bool) -> None:
    behaviour = Behaviour()
    with serving(behaviour) as url:
        source = Endpoint(url, prompt_cache=cache)
        cells = [Cell("workloads", "rag", 752, 2), Cell("workloads", "agent", 602, 2, 2)]
        Suite(cells, runs=3, warm_ups=1, prompt_cache=cache).measure(source)
        source.close()
    prompts = behaviour.contents[1:]  # the first settles what the server takes
    assert len(prompts) == 4 + 8
    assert len(set(prompts)) == (2 if cache else len(prompts))
    assert all(body.get("cache_prompt") is cache for body in behaviour.asked)


def test_depths_come_out_at_their_length_and_deeper_ones_are_left_out() -> None:
    behaviour = Behaviour(context=300)
    with serving(behaviour) as url:
        report = benchmark(
            endpoint=url, suite="depth", contexts=[128, 256, 512], runs=2, warm_ups=0, probes=False
        )
    (subject,) = report.subjects
    lengths = [row.metrics["prompt_tokens"].median for row in subject.rows]
    assert lengths == [128, 256]
    assert subject.left_out.keys() == {"depth 512"}
    assert "exceeds the context" in subject.left_out["depth 512"]


def test_depths_need_a_count() -> None:
    with serving(Behaviour(usage=False)) as url, pytest.raises(EndpointError, match=r"MODEL\.gguf"):
        benchmark(endpoint=url, suite="depth", contexts=[128], probes=False)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")
def test_the_process_behind_a_local_port_is_found() -> None:
    with serving(Behaviour()) as url:
        source = Endpoint(url)
        assert source.pid == os.getpid()
        assert (source.resident() or 0) > 1 << 20
        source.close()


@pytest.fixture(scope="module")
def llama_server() -> Any:
    program = shutil.which("llama-server")
    if program is None:
        pytest.skip("llama-server is not on the PATH")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-m", str(tiny_gguf()), "-c", "8192", "-np", "2", "-t", "1"]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([*command, "--port", str(port)], stdout=quiet, stderr=quiet)
    try:
        end = time.monotonic() + 60
        while not healthy(port):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1", server.pid
    finally:
        server.terminate()
        server.wait()


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_llama_server(llama_server: tuple[str, int]) -> None:
    url, pid = llama_server
    report = benchmark(
        endpoint=url, contexts=[128, 256], workloads=["chat"], concurrency=[1, 2], runs=2,
        warm_ups=1, threads=1,
    )  # fmt: skip
    (subject,) = report.subjects
    assert listener(int(url.split(":")[2].split("/")[0])) == pid
    depth, deeper, one, two = subject.rows
    assert [row.label for row in subject.rows] == ["128", "256", "chat", "chat x2"]
    assert abs(depth.metrics["prompt_tokens"].median - 128) <= 16
    assert abs(deeper.metrics["prompt_tokens"].median - 256) <= 16
    assert one.metrics["output_tokens"].values == (100, 100)
    assert two.metrics["output_tokens"].values == (100,) * 4
    assert all(row.cached_tokens == 0 for row in subject.rows)
    assert all(row.counted == USAGE and row.memory_growth is not None for row in subject.rows)
    assert subject.file is not None  # told by the server
    assert subject.file["name"] == tiny_gguf().name
