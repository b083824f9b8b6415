"""What guessing gains where an answer quotes its prompt, and costs where it repeats nothing.

    python tests/benchmarks/speculation.py MODEL.gguf --text wiki.test.raw [--draft SMALL.gguf]

The answers are dictated: each token is drawn as ever and then exchanged for the next one of a
text, so that a model with random weights "says" what a trained one would. ``edit`` is the workload
of ``lfm2gguf bench`` of that name, a file written again with one change, as the right answer has
it; ``new`` is running text that the prompt does not have; ``worst`` begins as something known at
every third token and never goes on like it.

By turns with ``lookup=0``. Prints JSON: tokens for each step, and the ratio of the speeds, median
and quartiles over the rounds, by the clock and by processor time (which a busy machine disturbs
less; it counts threads that wait busily).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from lfm2gguf.bench.workloads import workload
from lfm2gguf.runner import Runner
from tests.making.runners import dictated

OPTIONS: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "ignore_eos": True}
OLD, NEW = "of_gauge", "from_gauge"  # the change that the workload asks for


def cases(lfm: Runner, text: str, length: int) -> dict[str, tuple[list[int], list[int]]]:
    """Return the tokens of a prompt and of its answer, by the case's name."""
    messages = workload("edit").messages(417_305)
    code = messages[1]["content"].partition("\n\n")[2].replace(OLD, NEW)
    encode = lfm.tokens.encode
    words = encode(text[:100_000], bos=False)[2000 : 2000 + 400 + length]
    draw = random.Random(1)
    known = [[draw.randrange(2000, 30_000) for _ in range(4)] for _ in range(100)]
    wrong = [token for run in known for token in (*run[:3], draw.randrange(30_000, 40_000))]
    return {
        "edit": (lfm.tokens.of_chat(messages), encode(code, bos=False)),
        "new": (words[:400], words[400:]),
        "worst": ([token for run in known for token in run], wrong[:length]),
    }


def measure(model: Path, given: argparse.Namespace, lookup: int) -> dict[str, dict[str, float]]:
    """Seconds a token by the clock and by the processor, and tokens a step, of each case."""
    found = {}
    draft = given.draft if lookup else None
    with Runner(
        model, device="cpu", context=2048, lookup=lookup, draft=draft, threads=given.threads
    ) as lfm:
        text = given.text.read_text("utf-8")
        for name, (prompt, answer) in cases(lfm, text, given.tokens).items():
            with dictated(answer):
                stream = lfm.stream_complete(prompt, max_tokens=len(answer), **OPTIONS)
                pieces = iter(stream)
                next(pieces)
                began = time.process_time()
                for _ in pieces:
                    pass
                processor = time.process_time() - began
            usage = stream.reply.usage
            assert usage.completion_tokens == len(answer)
            found[name] = {
                "clock": 1 / usage.decode_speed,
                "processor": processor / len(answer),
                "tokens_per_step": len(answer) / (len(answer) - usage.guessed_right),
                "guessed": usage.guessed_tokens,
                "right": usage.guessed_right,
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rounds = []
    for i in range(given.rounds):
        order = (0, 8) if i % 2 else (8, 0)
        rounds.append({lookup: measure(given.model, given, lookup) for lookup in order})
    result: dict[str, Any] = {"model": given.model.name, "rounds": given.rounds}
    for name, first in rounds[0][8].items():
        result[name] = {
            key: round(first[key], 2) for key in ("tokens_per_step", "guessed", "right")
        }
        for clock in ("clock", "processor"):
            ratios = sorted(turn[0][name][clock] / turn[8][name][clock] for turn in rounds)
            result[name][clock] = round(statistics.median(ratios), 3)
            if len(ratios) > 1:
                result[name][f"{clock}_quartiles"] = [
                    round(q, 3) for q in statistics.quantiles(ratios, method="inclusive")
                ]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
