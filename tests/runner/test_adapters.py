"""LoRA adapters in the runner: each answer is that of the merged file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import Runner
from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.runner.engine.memory import Held
from tests.making.models import tiny_gguf

QUESTIONS = ["Who?", "What is it?", "Where and when?", "Why, and how often?"]
OPTIONS: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "max_tokens": 8}
OPTIONS |= {"ignore_eos": True, "logprobs": 3}


@pytest.fixture(scope="module")
def lfm(adapted: dict[str, Path]) -> Iterator[Runner]:
    adapters = {name: adapted[name] for name in ("a", "b")}
    with Runner(adapted["base"], adapters=adapters, context=1024, threads=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def expected(adapted: dict[str, Path]) -> dict[tuple[str | None, str], list[float]]:
    """What the plain and the merged files answer."""
    answers = {}
    for adapter, name in ((None, "base"), ("a", "merged-a"), ("b", "merged-b")):
        with Runner(adapted[name], context=1024, threads=1) as runner:
            answers |= {(adapter, q): logprobs(runner, q) for q in QUESTIONS}
    return answers


def logprobs(lfm: Runner, question: str, **options: Any) -> list[float]:
    reply = lfm.chat(question, **{**OPTIONS, **options})
    assert reply.logprobs is not None
    return [logprob for step in reply.logprobs for _, logprob in step.top]


def test_an_adapter_answers_as_the_merged_file_does(lfm: Runner, expected: Any) -> None:
    for adapter in (None, "a", "b", "a", None):  # back and forth: no state of another's is used
        for question in QUESTIONS:
            found = logprobs(lfm, question, adapter=adapter)
            assert found == pytest.approx(expected[adapter, question], abs=2e-3)
    different = [
        abs(x - y) for x, y in zip(*(expected[k, "Who?"] for k in ("a", "b")), strict=True)
    ]
    assert max(different) > 0.01


def test_many_at_once_each_with_its_own(lfm: Runner, expected: Any) -> None:
    keys = [(adapter, q) for adapter in (None, "a", "b") for q in QUESTIONS] * 2
    random.Random(1).shuffle(keys)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda key: logprobs(lfm, key[1], adapter=key[0]), keys))
    for key, one in zip(keys, found, strict=True):
        assert one == pytest.approx(expected[key], abs=2e-3)


def test_long_answers_take_turns(lfm: Runner) -> None:
    """None has to wait for another adapter's answer to end."""
    streams = [lfm.stream(q, **{**OPTIONS, "max_tokens": 150, "adapter": a}) for q, a in (
        ("Long?", "a"), ("Longer?", "b"))]  # fmt: skip
    for stream in streams:
        stream.start()
    replies = [stream.wait() for stream in streams]
    assert [reply.usage.completion_tokens for reply in replies] == [150, 150]
    firsts = [reply.usage.time_to_first_token for reply in replies]
    assert max(firsts) < min(reply.usage.seconds for reply in replies)


def test_a_scale(lfm: Runner, expected: Any) -> None:
    nothing = logprobs(lfm, "Who?", adapter="a", adapter_scale=0.0)
    assert nothing == pytest.approx(expected[None, "Who?"], abs=2e-3)
    thrice = logprobs(lfm, "Who?", adapter="a", adapter_scale=3.0)  # b is a with alpha 24, not 8
    assert thrice == pytest.approx(expected["b", "Who?"], abs=2e-3)


def test_a_conversation_goes_on_with_its_adapter(lfm: Runner) -> None:
    history: list[Any] = [{"role": "user", "content": "Tell me about the sea, and the land."}]
    reply = lfm.chat(history, **{**OPTIONS, "adapter": "b"})
    history += [reply.message, {"role": "user", "content": "More?"}]
    assert lfm.chat(history, **{**OPTIONS, "adapter": "b"}).usage.cached_tokens > 20
    assert lfm.chat(history, **{**OPTIONS, "adapter": "a"}).usage.cached_tokens == 0


def test_what_another_adapter_computed_cannot_be_reached() -> None:
    held = Held([1, 2, 3], {}, ("a", 1.0))
    assert held.reach([1, 2, 3, 4], ("a", 1.0)) == 3
    for other in (None, ("b", 1.0), ("a", 0.5)):
        assert held.reach([1, 2, 3, 4], other) == 0


def test_unknown_adapters(lfm: Runner) -> None:
    with pytest.raises(OptionError, match="adapter is 'c': the model was opened with a, b"):
        lfm.chat("Who?", adapter="c")
    with Runner(tiny_gguf(), context=256) as plain, pytest.raises(OptionError, match="none: give"):
        plain.chat("Who?", adapter="a")


def test_files_that_are_no_adapter_of_this_model(adapted: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="not a LoRA adapter"):
        Runner(adapted["base"], adapters={"x": adapted["base"]})
    with pytest.raises(GGUFError, match="cannot apply"):
        Runner(tiny_gguf(), adapters={"x": adapted["a"]})
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(adapted["a"].read_bytes()[:-100])
    with pytest.raises(GGUFError):
        Runner(adapted["base"], adapters={"x": cut})
