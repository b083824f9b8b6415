"""Hold the endpoint client beside clients of another make, and beside the server's own clock.

    python tests/benchmarks/bench_beside_other_clients.py MODEL.gguf --programs llama.cpp/build/bin

All ask the same llama-server for the same workload, in turns, with the same settings and prompts
of their own: the ``openai`` package, and a few lines over Python's ``http.client``, which also
note what llama-server says under ``timings``. Prints JSON: the medians of each figure, and the
ratio of ours to theirs. The openai package needs about a third of a millisecond for a chunk:
above some thousand tokens a second it is what it measures.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai

from lfm2gguf.bench.cells import Cell, plan
from lfm2gguf.bench.metrics import METRICS, Measurement
from lfm2gguf.bench.sources.endpoint import Endpoint
from lfm2gguf.bench.workloads import Numbers, workload
from lfm2gguf.llamacpp import default_threads

PORT = 18_081
FIGURES = ("decode", "end_to_end", "prefill", "first_token", "latency")


def by_openai(cell: Cell, number: int) -> Measurement:
    """What the openai package sees, by its own parsing and our definitions."""
    client = _openai()
    began = time.perf_counter()
    times: list[float] = []
    usage: Any = None
    stream = client.chat.completions.create(
        model="any", messages=workload(cell.name).messages(number), max_tokens=cell.output,  # type: ignore[arg-type]
        temperature=0, stream=True, stream_options={"include_usage": True},
        extra_body={"ignore_eos": True, "repeat_penalty": 1.0, "cache_prompt": False},
    )  # fmt: skip
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            times.append(time.perf_counter() - began)
        usage = chunk.usage or usage
    total = time.perf_counter() - began
    count = usage.completion_tokens
    return Measurement(usage.prompt_tokens, count, times[0], times[-1], total, count - 1)


@functools.cache
def _openai() -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none")


def by_hand(cell: Cell, number: int) -> tuple[Measurement, dict[str, float]]:
    """What http.client sees, and what the server says of the same request."""
    body = json.dumps({
        "messages": workload(cell.name).messages(number), "max_tokens": cell.output,
        "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
        "ignore_eos": True, "repeat_penalty": 1.0, "cache_prompt": False,
    })  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    times: list[float] = []
    last: dict[str, Any] = {}
    while (line := answer.readline()) and not line.startswith(b"data: [DONE]"):
        if line.startswith(b"data: "):
            last = json.loads(line[6:])
            if last["choices"] and last["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter() - began)
    total = time.perf_counter() - began
    connection.close()
    usage, timings = last["usage"], last["timings"]
    count = usage["completion_tokens"]
    told = {"decode": timings["predicted_per_second"], "prefill": timings["prompt_per_second"]}
    seen = Measurement(usage["prompt_tokens"], count, times[0], times[-1], total, count - 1)
    return seen, told


def measure(cells: list[Cell], rounds: int) -> dict[str, Any]:
    ours = Endpoint(f"http://127.0.0.1:{PORT}")
    numbers = Numbers(vary=True)
    found: dict[str, Any] = {}
    for cell in cells:
        ours.prepare(cell)
        seen: dict[str, list[Measurement]] = {"ours": [], "openai": [], "http.client": []}
        told: list[dict[str, float]] = []
        for round in range(rounds + 1):
            numbers_ = iter(numbers.take(3))
            for name in sorted(seen, key=lambda name: (len(name) + round) % 3):
                if name == "ours":
                    seen[name] += ours.measure(cell, [next(numbers_)])
                elif name == "openai":
                    seen[name].append(by_openai(cell, next(numbers_)))
                else:
                    measured, server = by_hand(cell, next(numbers_))
                    seen[name].append(measured)
                    told.append(server)
        found[cell.label] = {id: beside(id, seen, told) for id in FIGURES}
    ours.close()
    return found


def beside(
    id: str, seen: dict[str, list[Measurement]], told: list[dict[str, float]]
) -> dict[str, float]:
    """Medians of all clients and of the server; the first round warms up."""
    of = METRICS[id].of
    values = {name: statistics.median(of(m) or 0.0 for m in all[1:]) for name, all in seen.items()}
    if id in told[0]:
        values["server"] = statistics.median(one[id] for one in told[1:])
    ratios = {f"ours/{name}": values["ours"] / values[name] for name in list(values)[1:]}
    return {name: float(f"{value:.4g}") for name, value in (values | ratios).items()}


def wait_until_up() -> None:
    end = time.monotonic() + 60
    while not _is_up():
        if time.monotonic() > end:
            sys.exit("llama-server does not answer")
        time.sleep(0.1)


def _is_up() -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health").close()
    except OSError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--workloads", default="chat")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    command = [given.programs / "llama-server", "-m", given.model, "-c", 8192, "-np", 1]
    command += ["--port", PORT, "-t", default_threads(), "--cache-ram", 0]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([*map(str, command)], stdout=quiet, stderr=quiet)
    try:
        wait_until_up()
        cells = plan("workloads", workloads=given.workloads.split(","), concurrency=[1])
        print(json.dumps(measure(cells, given.rounds), indent=1))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
