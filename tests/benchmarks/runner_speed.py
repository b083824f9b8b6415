"""Measure the runner beside llama.cpp's own programs, on the same file in the same run.

    python tests/benchmarks/runner_speed.py MODEL.gguf --programs llama.cpp/build/bin

Prints JSON: decode speed of one request against ``llama-bench``, and tokens/s in and out of
four agent-like requests (600 in, 200 out) at once against ``llama-server`` with four slots.
No answer ends early and nothing is guessed (``lookup=0``), so that all do the same work. Of files
with random weights, one of a checkpoint made with ``--sharp 6`` (``make_checkpoint.py``) leaves
the model's own sampling as few candidates as a trained one does.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lfm2gguf.llamacpp import default_threads
from lfm2gguf.runner import Runner

GREEDY = {"temperature": 0.0, "repeat_penalty": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
PORT = 18_080
TOKENS = 64  # of an answer to one request


def never_ending(lfm: Runner) -> dict[int, float]:
    return dict.fromkeys(lfm.tokens.ends, -100.0)


def text_of(lfm: Runner, tokens: int, seed: int) -> str:
    """Return a text of about so many tokens, and no prefix in common with another seed's."""
    draw = random.Random(seed)
    words = ["worm", "gene", "cell", "brain", "light", "river", "stone", "cloud", "seven"]
    text = ""
    while len(lfm.tokens.encode(text, bos=False)) < tokens:
        text += " " + draw.choice(words)
    return text


def ours_alone(lfm: Runner, options: dict[str, Any]) -> float:
    return lfm.chat("Go on.", max_tokens=TOKENS + 1, **options).usage.decode_speed


def bench(programs: Path, model: Path, threads: int) -> float:
    command = [programs / "llama-bench", "-m", model, "-p", "0", "-n", str(TOKENS), "-r", "1"]
    out = subprocess.run(
        [*map(str, command), "-t", str(threads), "-o", "json"], capture_output=True, check=True
    )
    return float(json.loads(out.stdout)[0]["avg_ts"])


def alone(programs: Path, model: Path, rounds: int) -> dict[str, Any]:
    """Decode speed of each in turn; the ratios are medians over rounds, as machines drift."""
    threads = default_threads()
    with Runner(model, device="cpu", context=1024, lookup=0) as lfm:
        bias = never_ending(lfm)
        runs: dict[str, Callable[[], float]] = {
            "llama_bench": lambda: bench(programs, model, threads),
            "runner_greedy": lambda: ours_alone(lfm, {**GREEDY, "logit_bias": bias}),
            "runner_model_sampling": lambda: ours_alone(lfm, {"logit_bias": bias}),
        }
        speeds: dict[str, list[float]] = {name: [] for name in runs}
        for i in range(rounds):
            for name in list(runs)[:: -1 if i % 2 else 1]:
                speeds[name].append(runs[name]())
    theirs = speeds["llama_bench"]
    result: dict[str, Any] = {name: [round(x, 2) for x in found] for name, found in speeds.items()}
    for name in list(runs)[1:]:
        ratios = sorted(a / b for a, b in zip(speeds[name], theirs, strict=True))
        result[f"ratio_{name}"] = round(statistics.median(ratios), 3)
        result[f"ratio_{name}_quartiles"] = [round(q, 3) for q in statistics.quantiles(ratios)]
    return result


def four_ours(lfm: Runner, prompts: list[str], *, threads: bool) -> tuple[float, list[Any]]:
    options = {**GREEDY, "logit_bias": never_ending(lfm), "max_tokens": 200}
    began = time.perf_counter()
    if threads:
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda prompt: lfm.chat(prompt, **options), prompts))
    else:
        replies = lfm.batch(prompts, **options)
    return time.perf_counter() - began, [r.usage for r in replies]


def four_theirs(programs: Path, model: Path, prompts: list[list[int]]) -> tuple[float, list[Any]]:
    command = [programs / "llama-server", "-m", model, "-np", "4", "-c", "4096", "--port", PORT]
    command += ["-t", default_threads(), "--no-webui", "--cache-ram", "0"]
    server = subprocess.Popen([*map(str, command)], stdout=-3, stderr=-3)
    try:
        _wait_until_up()
        timings: list[Any] = [None] * len(prompts)

        def ask(i: int) -> None:
            timings[i] = _post({
                "prompt": prompts[i], "n_predict": 200, "temperature": 0, "ignore_eos": True,
                "repeat_penalty": 1.0, "samplers": ["temperature"], "cache_prompt": False,
            })["timings"]  # fmt: skip

        workers = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - began, timings
    finally:
        server.terminate()
        server.wait()


def _post(body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/completion",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def _wait_until_up() -> None:
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


def together(programs: Path, model: Path, rounds: int) -> dict[str, Any]:
    """Tokens/s of four requests at once by turns; the ratios are medians over rounds."""
    speeds: dict[str, list[float]] = {"llama_server": [], "batch": [], "threads": []}
    for i in range(rounds):
        with Runner(model, device="cpu", context=4096, parallel=4, lookup=0, state_bytes=0) as lfm:
            prompts = {
                n: [text_of(lfm, 585, 20 * i + j) for j in range(k, k + 4)]
                for n, k in (("batch", 0), ("threads", 10))
            }
            tokens = [lfm.tokens.of_chat(p) for p in prompts["threads"]]
            total = sum(map(len, tokens)) + 4 * 200
            if i % 2:
                speeds["llama_server"].append(total / their_time(programs, model, tokens))
            for name, asked in prompts.items():
                seconds, usage = four_ours(lfm, asked, threads=name == "threads")
                assert all(u.completion_tokens == 200 and not u.cached_tokens for u in usage)
                own = sum(u.prompt_tokens + u.completion_tokens for u in usage)
                speeds[name].append(own / seconds)
        if not i % 2:
            speeds["llama_server"].append(total / their_time(programs, model, tokens))
    theirs = speeds["llama_server"]
    result: dict[str, Any] = {name: [round(x, 1) for x in found] for name, found in speeds.items()}
    for name in ("batch", "threads"):
        ratios = sorted(a / b for a, b in zip(speeds[name], theirs, strict=True))
        result[f"ratio_{name}"] = round(statistics.median(ratios), 3)
        result[f"ratio_{name}_range"] = [round(ratios[0], 3), round(ratios[-1], 3)]
    return result


def their_time(programs: Path, model: Path, prompts: list[list[int]]) -> float:
    seconds, timings = four_theirs(programs, model, prompts)
    assert all(t["predicted_n"] == 200 for t in timings)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--what", choices=["alone", "together"], required=True)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.what == "alone":
        result = alone(given.programs, given.model, given.rounds)
    else:
        result = together(given.programs, given.model, given.rounds)
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    result |= {"model": given.model.name, "cores": default_threads()}
    result["cpu"] = cpu[1] if cpu else "unknown"
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
