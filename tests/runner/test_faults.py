"""Whose fault it is: a request that fails leaves its neighbours' answers as they are."""

from __future__ import annotations

import itertools
import queue
import time
from typing import Any

import numpy as np
import pytest

from lfm2gguf import Lfm2ggufError, Runner
from lfm2gguf.errors import OptionError, RuntimeFailureError
from lfm2gguf.llamacpp import Sampler
from lfm2gguf.options import Options
from lfm2gguf.runner.engine.request import Request

QUESTIONS = ("Count to ten.", "What is a river?", "Tell me of the sea.")


def greedy() -> dict[str, Any]:
    return {"temperature": 0.0, "max_tokens": 40}


def test_a_token_that_llama_cpp_refuses(lfm: Runner) -> None:
    """It ends its own request; three that are decoded with it say what they say alone."""
    alone = [lfm.chat(question, **greedy()).text for question in QUESTIONS]
    events: queue.Queue[object] = queue.Queue()
    bad = Request([1, 2, len(lfm.tokens) + 7, 3], Options(max_tokens=5), events.put)
    streams = [lfm.stream(question, **greedy()) for question in QUESTIONS]
    with lfm.scheduler.together():
        for stream in streams:
            stream.start()
        lfm.scheduler.submit(bad)
    assert [stream.wait().text for stream in streams] == alone
    assert isinstance(events.get(timeout=30), RuntimeFailureError)
    assert lfm.chat(QUESTIONS[0], **greedy()).text == alone[0]


def test_a_sampler_that_fails(lfm: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [lfm.chat(question, **greedy()).text for question in QUESTIONS]
    sample = Sampler.sample

    def failing(self: Sampler, logits: np.ndarray) -> int:
        if self is victim[0]:
            raise ValueError("a fault of one request")
        return sample(self, logits)

    victim: list[Sampler] = []
    monkeypatch.setattr(Sampler, "sample", failing)
    *streams, failed = [lfm.stream(text, **greedy()) for text in (*QUESTIONS, "And I?")]
    with lfm.scheduler.together():
        for stream in (*streams, failed):
            stream.start()
        victim.append(list(lfm.scheduler.samplers.values())[-1])
    assert [stream.wait().text for stream in streams] == alone
    with pytest.raises(Lfm2ggufError, match="a fault of one request"):
        failed.wait()
    assert not lfm.scheduler.samplers


def test_a_grammar_that_takes_too_long(lfm: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which each of its calls takes a second; nobody else's grammar is asked."""
    alone = [lfm.chat(question, **greedy()).text for question in QUESTIONS]
    seconds = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: next(seconds))
    *streams, slow = [lfm.stream(text, **greedy()) for text in QUESTIONS] + [
        lfm.stream("And I?", **greedy(), grammar="root ::= [a-z ]+")
    ]
    with lfm.scheduler.together():
        for stream in (*streams, slow):
            stream.start()
    assert [stream.wait().text for stream in streams] == alone
    with pytest.raises(OptionError, match=r"more than 0\.3 s for each token"):
        slow.wait()
    assert not lfm.scheduler.samplers


def test_a_place_without_a_medium(lfm: Runner) -> None:
    with pytest.raises(OptionError, match="nothing for it"):
        lfm.scheduler.submit(Request([1, -1, 2], Options(), lambda event: None))
