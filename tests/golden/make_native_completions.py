"""Make native_completions.json: what llama-server answers at /completion with the example model.

    python -m tests.golden.make_native_completions LLAMA_SERVER

llama.cpp at 0c1e57098, the model in F32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx

from tests.benchmarks.serve_beside_llama_server import free_port, running
from tests.making.models import tiny_gguf

TARGET = Path(__file__).with_name("native_completions.json")
TEXT = "The function returns"
CASES = [
    {"prompt": TEXT, "n_predict": 6, "n_probs": 3, "return_tokens": True},
    {"prompt": TEXT, "n_predict": 6, "n_probs": 2, "stream": True},
    {"prompt": [TEXT, [5, 6, "x"], {"prompt_string": "y"}], "n_predict": 3},
    {"prompt": [5, 300, " and", 301], "n_predict": 3},
    {"prompt": [[1, 300], [301]], "n_predict": 2},
    {"prompt": TEXT, "n_predict": 20, "stop": ["of"]},
    {"prompt": TEXT, "n_predict": 3, "response_fields": [
        "content", "generation_settings/n_predict", "generation_settings/n_probs", "a/b"]},
]  # fmt: skip


def events(said: str) -> list[object]:
    """The events of a stream."""
    return [json.loads(part.removeprefix("data: ")) for part in said.split("\n\n") if part]


def ask(url: str, case: dict[str, object]) -> object:
    """What a server says to a case, at the likeliest tokens and from the beginning."""
    body = {"temperature": 0, "repeat_penalty": 1, "cache_prompt": False, **case}
    answer = httpx.post(f"{url}/completion", json=body, timeout=60).raise_for_status()
    return events(answer.text) if case.get("stream") else answer.json()


def main() -> None:
    port = free_port()
    command = [sys.argv[1], "-m", str(tiny_gguf()), "-np", "2", "-c", "2048", "-t", "1"]
    with running(command, port) as url:
        answers = [ask(url, case) for case in CASES]
    TARGET.write_text(json.dumps(answers, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
