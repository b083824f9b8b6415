"""Opening a Runner on the example model, and asking it so that an answer is known."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lfm2gguf.llamacpp import Floats, Sampler
from lfm2gguf.runner import Runner
from tests.making.models import tiny_gguf

GREEDY: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "top_k": 0}
QUESTIONS = [f"What does str.{name} do?" for name in ("upper", "lower", "split", "join", "strip")]
CALL = '<|tool_call_start|>[get_time(city="Rome")]<|tool_call_end|>'


def fresh(**options: Any) -> Runner:
    return Runner(tiny_gguf(), **{"device": "cpu", "threads": 1, **options})


def endless(lfm: Runner) -> dict[int, float]:
    """Bias that keeps the model from ending its answer."""
    return {lfm.tokens.eos: -1e9, lfm.tokens.encode("<|endoftext|>", bos=False)[0]: -1e9}


def literally(text: str) -> str:
    return f"root ::= {json.dumps(text)}"


@contextlib.contextmanager
def dictated(tokens: Sequence[int]) -> Iterator[None]:
    """Have every answer be these tokens: what a model says that knows what is wanted.

    Each is drawn as ever, and then exchanged. So steps, guesses and their cost are those of a
    model that copies a text, whatever the weights are.
    """

    class Dictated(Sampler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._rest = iter(tokens)

        def sample(self, logits: Floats) -> int:
            drawn = super().sample(logits)
            return next(self._rest, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lfm2gguf.runner.engine.scheduler.Sampler", Dictated)
        yield


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def get_time(city: str) -> str:
    """Tells the time.

    Args:
        city: Where.
    """
    return f"noon in {city}"
