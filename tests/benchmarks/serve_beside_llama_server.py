"""Measure ``lfm2gguf serve`` beside llama-server: one file, one client, one run, by turns.

    python tests/benchmarks/serve_beside_llama_server.py MODEL.gguf --programs llama.cpp/build/bin

Prints JSON: tokens per second of four agent-like requests at once (600 tokens in, 200 out), and
the time to the first token of a short chat that arrives while a prompt of 4096 tokens is read.
Both servers have four places and the same context and threads; every request is greedy, never ends
early, and begins with words that no earlier one had.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from lfm2gguf.llamacpp import default_threads

CONTEXT = 24_576
COMMON = {"temperature": 0, "ignore_eos": True, "stream": True, "repeat_penalty": 1.0}
THEIRS = {**COMMON, "cache_prompt": False}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    """A server, until the end of the block; its address."""
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([*command, "--port", str(port)], stdout=-3, stderr=-3)
    try:
        end = time.monotonic() + 120
        while not up(url):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{command[0]} does not answer")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def words(tokens: int, draw: random.Random) -> list[int]:
    """Token ids of plain words; the first ones tell this prompt from all others."""
    return [draw.randrange(2000, 30_000) for _ in range(tokens)]


async def ask(
    client: httpx.AsyncClient, url: str, prompt: list[int], out: int, extra: dict[str, Any]
) -> tuple[float, float, int]:
    """Seconds to the first token, seconds in all, and events with text or without."""
    began, first, events = time.perf_counter(), 0.0, 0
    body = {"prompt": prompt, "max_tokens": out, **extra}
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                first = first or time.perf_counter() - began
                events += 1
        if answer.status_code != 200:
            sys.exit(f"{url}: {answer.status_code}")
    return first, time.perf_counter() - began, events


async def together(url: str, prompts: list[list[int]], extra: dict[str, Any]) -> float:
    """Tokens per second, in and out, of four requests at once."""
    async with httpx.AsyncClient(timeout=600) as client:
        began = time.perf_counter()
        await asyncio.gather(*(ask(client, url, prompt, 200, extra) for prompt in prompts))
        return sum(len(prompt) + 200 for prompt in prompts) / (time.perf_counter() - began)


async def short_beside_long(
    url: str, long: list[int], short: list[int], extra: dict[str, Any]
) -> float:
    """Seconds to the first token of a short prompt, sent while a long one is being read."""
    async with httpx.AsyncClient(timeout=600) as client:
        reading = asyncio.create_task(ask(client, url, long, 8, extra))
        await asyncio.sleep(1)
        first, _, _ = await ask(client, url, short, 16, extra)
        await reading
        return first


def measure(url: str, extra: dict[str, Any], draw: random.Random) -> tuple[float, float]:
    prompts = [words(600, draw) for _ in range(4)]
    rate = asyncio.run(together(url, prompts, extra))
    long, short = words(4096, draw), words(30, draw)
    return rate, asyncio.run(short_beside_long(url, long, short, extra))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    threads = str(default_threads())
    ours = [sys.executable, "-m", "lfm2gguf_cli.main", "serve", str(given.model), "--device", "cpu"]
    ours += ["--threads", threads, "--parallel", "4", "--context", str(CONTEXT)]
    theirs = [str(given.programs / "llama-server"), "-m", str(given.model), "-t", threads]
    theirs += ["-np", "4", "-c", str(CONTEXT), "--no-webui", "--cache-ram", "0"]
    found: dict[str, list[tuple[float, float]]] = {"lfm2gguf": [], "llama-server": []}
    draw = random.Random(1)
    for _ in range(given.rounds):  # one server at a time: their threads wait busily
        for name, command, extra in (
            ("llama-server", theirs, THEIRS), ("lfm2gguf", ours, COMMON),
        ):  # fmt: skip
            with running(command, free_port()) as url:
                found[name].append(measure(url, extra, draw))
    rates = {name: [round(rate, 2) for rate, _ in rows] for name, rows in found.items()}
    firsts = {name: [round(first, 2) for _, first in rows] for name, rows in found.items()}
    middle = {n: (statistics.median(rates[n]), statistics.median(firsts[n])) for n in found}
    (rate, first), (their_rate, their_first) = middle["lfm2gguf"], middle["llama-server"]
    print(json.dumps({
        "model": given.model.name,
        "threads": int(threads),
        "four_at_once_tokens_per_second": rates,
        "four_at_once_ratio": round(rate / their_rate, 3),
        "short_beside_long_first_token_s": firsts,
        "short_beside_long_ratio": round(first / their_first, 3),
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
