"""Ten turns of a chat: tokens in the prompt, held already, and prefilled, turn by turn.

    python tests/benchmarks/runner_turns.py MODEL.gguf

A system prompt of some 300 tokens, then ten questions; answers are of 40 tokens.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from lfm2gguf.runner import Runner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    given = parser.parse_args()
    turns = []
    with Runner(given.model, device="cpu", context=4096) as lfm:
        history: list[Any] = [{"role": "system", "content": "You answer in a few words. " * 50}]
        for turn in range(10):
            history.append({"role": "user", "content": f"Question {turn}: what is worth knowing?"})
            reply = lfm.chat(history, max_tokens=40, seed=turn)
            history.append(reply.message)
            usage = reply.usage
            turns.append({
                "prompt": usage.prompt_tokens,
                "held": usage.cached_tokens,
                "prefilled": usage.prefilled_tokens,
                "first_token_s": round(usage.time_to_first_token, 3),
            })  # fmt: skip
        use = lfm.memory
    print(json.dumps({"turns": turns, "state_bytes": use.state_bytes}, indent=1))


if __name__ == "__main__":
    main()
