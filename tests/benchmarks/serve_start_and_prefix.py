"""How soon ``lfm2gguf serve`` answers beside llama-server: after its start, and after a prefix.

    python tests/benchmarks/serve_start_and_prefix.py MODEL.gguf --programs llama.cpp/build/bin
        [--rounds 5] [--start-only] [--mmap]

``start`` is the time from starting the program to the end of a chat answer of one token (once the
file has been served on this machine before, as its first load is tried in a process of its own);
with ``--mmap`` this server maps the file, as llama-server does, and does not read it.
``prefix`` is the time to the first token of a chat whose system message of about 4000 tokens was in
the chat before it, with another question; each server has its prompt cache as it comes. Servers
run by turns, one at a time. Prints JSON: medians, and the median and quartiles of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))
from lfm2gguf.llamacpp import default_threads
from tests.benchmarks.serve_beside_llama_server import free_port

PREFIX = 2000  # words; about two tokens each
CONTEXT = 8192
WORDS = ("tide", "gauge", "harbour", "pilot", "lantern", "mooring", "ballast", "current")


def first_token(client: httpx.Client, messages: list[dict[str, str]], out: int) -> float:
    """Seconds to the first text of a chat answer."""
    began, first = time.perf_counter(), 0.0
    body = {"messages": messages, "max_tokens": out, "stream": True, "temperature": 0,
            "ignore_eos": True}  # fmt: skip
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                if delta.get("content") and not first:
                    first = time.perf_counter() - began
    if answer.status_code != 200 or not first:
        sys.exit(f"{client.base_url}: {answer.status_code}, no text")
    return first


def until_up(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            sys.exit("a server does not answer")
        time.sleep(0.01)


def measure(command: list[str], prefix: str) -> dict[str, float]:
    """Start a server, and ask it; with an empty prefix, for the first answer alone."""
    port = free_port()
    began = time.perf_counter()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen([*command, "--port", str(port)], stdout=-3, stderr=-3, env=env)
    try:
        fresh = httpx.Limits(max_keepalive_connections=0)  # llama-server ends some without a word
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, timeout=600, limits=fresh) as client:
            until_up(client, process)
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
            client.post("/v1/chat/completions", json=body).raise_for_status()
            start = time.perf_counter() - began
            if not prefix:
                return {"start": start}
            firsts = []
            for question in ("When is high water?", "Who lights the lantern?", "How deep is it?"):
                messages = [{"role": "system", "content": prefix},
                            {"role": "user", "content": question}]  # fmt: skip
                firsts.append(first_token(client, messages, 4))
            return {"start": start, "whole": firsts[0], "prefix": statistics.mean(firsts[1:])}
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--start-only", action="store_true")
    parser.add_argument("--mmap", action="store_true")
    given = parser.parse_args()
    threads = str(default_threads())
    shared = ["-t", threads, "-c", str(CONTEXT)]
    ours = [sys.executable, "-m", "lfm2gguf_cli.main", "serve", str(given.model), "--device", "cpu",
            "--threads", threads, "--context", str(CONTEXT)]  # fmt: skip
    ours += ["--mmap"] * given.mmap
    theirs = [str(given.programs / "llama-server"), "-m", str(given.model), *shared, "--jinja"]
    commands = {"lfm2gguf": ours, "llama-server": theirs}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    draw = random.Random(1)
    for i in range(given.rounds + 1):
        prefix = "" if given.start_only else " ".join(draw.choices(WORDS, k=PREFIX))
        for name in list(commands)[:: -1 if i % 2 else 1]:
            measured = measure(commands[name], prefix)
            if i:  # the first fills the machine's caches
                found[name].append(measured)
    result: dict[str, Any] = {"model": given.model.name, "rounds": given.rounds}
    for what in ("start",) if given.start_only else ("start", "whole", "prefix"):
        ratios = [
            a[what] / b[what] for a, b in zip(found["lfm2gguf"], found["llama-server"], strict=True)
        ]
        result[what] = {
            **{n: round(statistics.median(m[what] for m in rows), 3) for n, rows in found.items()},
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
