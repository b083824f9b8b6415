"""The Runner, with the real library and the example model."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf.errors import ContextError, Lfm2ggufError, OptionError, RuntimeFailureError
from lfm2gguf.runner import Reply, Runner, ToolCall
from tests.making.models import tiny_gguf

GREEDY: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "top_k": 0}
QUESTIONS = [f"What does str.{name} do?" for name in ("upper", "lower", "split", "join", "strip")]


@pytest.fixture(scope="module")
def lfm() -> Iterator[Runner]:
    with Runner(tiny_gguf(), device="cpu", threads=1) as runner:
        yield runner


def fresh(**options: Any) -> Runner:
    return Runner(tiny_gguf(), **{"device": "cpu", "threads": 1, **options})


def endless(lfm: Runner) -> dict[int, float]:
    """Bias that keeps the model from ending its answer."""
    return {lfm.tokens.eos: -1e9, lfm.tokens.encode("<|endoftext|>", bos=False)[0]: -1e9}


# --- one answer --------------------------------------------------------------------------


def test_an_answer_and_what_it_cost(lfm: Runner) -> None:
    reply = lfm.chat("What does len do?", max_tokens=12, logit_bias=endless(lfm), seed=3)
    assert reply.finish_reason == "length"
    assert reply.seed == 3
    usage = reply.usage
    assert usage.completion_tokens == 12
    assert usage.prompt_tokens == lfm.count_tokens("What does len do?")
    assert usage.cached_tokens + usage.prefilled_tokens == usage.prompt_tokens
    assert 0 < usage.time_to_first_token < usage.seconds
    assert usage.decode_speed > 0


def test_bos_exactly_once(lfm: Runner) -> None:
    assert lfm.tokens.of_chat("Hi").count(lfm.tokens.bos) == 1
    text = lfm.tokens.text_of(lfm.tokens.bos)
    a, b = (lfm.complete(p, max_tokens=4, **GREEDY) for p in ("def f", f"{text}def f"))
    assert a.usage.prompt_tokens == b.usage.prompt_tokens
    assert a.text == b.text


def test_prompts_are_tokenized_as_the_library_tokenizes_them(lfm: Runner) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Brief."},
        {"role": "user", "content": "日本語 🙂\n\n  x = 1 "},
        {"role": "assistant", "content": "An answer never given before."},
        {"role": "user", "content": "!"},
    ]
    encoded = lfm.tokens.encode(lfm.render(messages), bos=False)
    assert lfm.tokens.of_chat(messages) == encoded


def test_the_seed_repeats_and_greedy_needs_none(lfm: Runner) -> None:
    options: dict[str, Any] = {"max_tokens": 16, "temperature": 1.5, "min_p": 0.0}
    a, b, c = (lfm.chat("Tell me.", seed=seed, **options).message for seed in (1, 1, 2))
    assert a == b
    assert a != c
    greedy = {lfm.chat("Tell me.", max_tokens=16, **GREEDY).text for _ in range(3)}
    assert len(greedy) == 1


def test_unicode_survives_a_stream(lfm: Runner) -> None:
    text = "naïve 日本語 🙂🇫🇷 مرحبا"
    grammar = f"root ::= {json.dumps(text, ensure_ascii=False)}"
    pieces = [str(piece) for piece in lfm.stream("Hi", grammar=grammar)]
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("stop", ["two", ["zzz", "o th"], "three"])
def test_stop_strings_end_the_answer_before_them(lfm: Runner, stop: Any) -> None:
    reply = lfm.chat("Hi", grammar='root ::= "one two three four"', stop=stop)
    first = stop if isinstance(stop, str) else stop[1]
    assert reply.text == "one two three four".split(first)[0]
    assert reply.finish_reason == "stop"


def test_json_fits_its_schema(lfm: Runner) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
        "required": ["n", "kind"],
    }
    for seed in range(4):
        value = json.loads(lfm.chat("Hi", json_schema=schema, temperature=1.0, seed=seed).text)
        assert set(value) == {"n", "kind"}
        assert isinstance(value["n"], int)
        assert value["kind"] in ("a", "b")


def test_logprobs_are_the_models_own(lfm: Runner) -> None:
    reply = lfm.chat("What does len do?", max_tokens=5, logprobs=3, **GREEDY)
    assert reply.logprobs is not None
    assert len(reply.logprobs) == reply.usage.completion_tokens - (reply.finish_reason == "stop")
    for entry in reply.logprobs:
        assert entry.token == entry.top[0][0]
        assert entry.logprob == entry.top[0][1] <= 0
        assert sum(np.exp(logprob) for _, logprob in entry.top) <= 1 + 1e-9
    assert lfm.chat("Hi", max_tokens=1).logprobs is None


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"max_tokens": 0},
        {"top_p": 2},
        {"min_p": float("nan")},
        {"stop": ""},
        {"tempreature": 1},
        {"grammar": "root ::= ("},
        {"grammar": " "},
        {"grammar": 'root ::= "a"', "json_schema": {}},
        {"logit_bias": {10**9: 1.0}},
        {"overflow": "maybe"},
    ],
)
def test_bad_options_are_refused_and_nothing_breaks(lfm: Runner, options: Any) -> None:
    with pytest.raises(OptionError):
        lfm.chat("Hi", **options)
    assert lfm.chat("Hi", max_tokens=1).usage.completion_tokens == 1


# --- tools -------------------------------------------------------------------------------


def get_time(city: str) -> str:
    """Tells the time.

    Args:
        city: Where.
    """
    return f"noon in {city}"


def literally(text: str) -> str:
    return f"root ::= {json.dumps(text)}"


CALL = '<|tool_call_start|>[get_time(city="Rome")]<|tool_call_end|>'


def test_calls_are_parsed_and_checked(lfm: Runner) -> None:
    reply = lfm.chat("Time?", tools=[get_time], grammar=literally(CALL + "Done."))
    assert reply.tool_calls == (ToolCall("get_time", {"city": "Rome"}),)
    assert reply.text == "Done."
    wrong = CALL.replace("city", "town")
    reply = lfm.chat("Time?", tools=[get_time], grammar=literally(wrong))
    assert reply.tool_calls == ()
    assert "'city' is missing" in reply.bad_calls[0].reason
    reply = lfm.chat("Time?", tools=[get_time], grammar=literally(CALL[:30]))
    assert "ends inside" in reply.bad_calls[0].reason


def test_a_stream_hands_out_calls_before_its_end(lfm: Runner) -> None:
    pieces = list(lfm.stream("Time?", tools=[get_time], grammar=literally(CALL + " And more.")))
    calls = [i for i, piece in enumerate(pieces) if piece.call]
    assert len(calls) == 1
    assert calls[0] < len(pieces) - 1


def test_run_tools_executes_and_goes_on(lfm: Runner) -> None:
    seen: list[str] = []

    def get_time(city: str) -> str:
        seen.append(city)
        if len(seen) > 1:
            raise ValueError("no such city")
        return "noon"

    reply, history = lfm.run_tools("Time?", [get_time], max_rounds=2, grammar=literally(CALL))
    assert seen == ["Rome", "Rome"]
    assert [m["role"] for m in history] == ["user", "assistant", "tool", "assistant", "tool"]
    assert history[2]["content"] == "noon"
    assert "ValueError: no such city" in history[4]["content"]
    assert reply.tool_calls
    assert "get_time" in lfm.render(history)


def test_arun_tools_awaits_coroutines_and_leaves_the_loop_free(lfm: Runner) -> None:
    seen: list[tuple[str, bool]] = []
    here = threading.get_ident()

    async def get_time(city: str) -> str:
        await asyncio.sleep(0)
        seen.append((city, threading.get_ident() == here))
        return "noon"

    def slow(city: str) -> str:
        seen.append((city, threading.get_ident() == here))
        raise ValueError("no such city")

    async def main(function: Any) -> Any:
        return await lfm.arun_tools("Time?", [function], max_rounds=1, grammar=literally(CALL))

    _, history = asyncio.run(main(get_time))
    assert history[-1]["content"] == "noon"
    slow.__name__ = "get_time"
    _, history = asyncio.run(main(slow))
    assert "ValueError: no such city" in history[-1]["content"]
    assert seen == [("Rome", True), ("Rome", False)]
    with pytest.raises(OptionError, match="use arun_tools"):
        lfm.run_tools("Time?", [get_time])


def test_what_run_tools_cannot_execute_is_refused(lfm: Runner) -> None:
    with pytest.raises(OptionError, match="max_rounds is 0"):
        lfm.run_tools("Time?", [get_time], max_rounds=0)
    with pytest.raises(OptionError, match="get_time is a schema"):
        lfm.run_tools("Time?", [{"name": "get_time"}])  # type: ignore[list-item]


def test_bad_calls_are_told_to_the_model_and_not_executed(lfm: Runner) -> None:
    def get_time(city: str) -> str:
        raise AssertionError(city)

    wrong = CALL.replace('"Rome"', "3")
    _, history = lfm.run_tools("Time?", [get_time], max_rounds=1, grammar=literally(wrong))
    assert "3 is no string" in history[-1]["content"]


def test_thinking_is_apart_and_kept_for_the_next_turn(lfm: Runner) -> None:
    reply = lfm.chat("Hm?", grammar=literally("<think>A call? " + CALL + "</think>\n\nNo."))
    assert (reply.text, reply.tool_calls) == ("No.", ())
    assert reply.thinking == "A call? " + CALL
    history = [{"role": "user", "content": "Hm?"}, reply.message]
    assert f"<think>{reply.thinking}</think>\n\nNo." in lfm.render(history)


# --- plain texts -------------------------------------------------------------------------


def test_a_completion_is_all_text_and_may_be_streamed(lfm: Runner) -> None:
    answer = "<think>no</think><|tool_call_start|>[f()]<|tool_call_end|>"
    grammar = f"root ::= {json.dumps(answer)}"
    reply = lfm.complete("def f", grammar=grammar)
    assert (reply.text, reply.thinking, reply.tool_calls) == (answer, "", ())
    stream = lfm.stream_complete("def f", grammar=grammar)
    assert "".join(map(str, stream)) == answer
    assert stream.reply.text == answer


def test_a_completion_of_tokens(lfm: Runner) -> None:
    tokens = lfm.tokenize("def f")
    assert lfm.complete(tokens, max_tokens=5, **GREEDY).text == (
        lfm.complete("def f", max_tokens=5, **GREEDY).text
    )
    assert b"".join(map(lfm.token_bytes, tokens[1:])) == b"def f"
    for wrong in (-1, 10**6):
        with pytest.raises(OptionError, match="no token id"):
            lfm.complete([wrong])


def test_pieces_carry_the_logprobs_of_their_tokens(lfm: Runner) -> None:
    stream = lfm.stream("What does len do?", max_tokens=8, logprobs=1, stop=["zzz"], **GREEDY)
    pieces = list(stream)
    assert tuple(entry for piece in pieces for entry in piece.logprobs) == stream.reply.logprobs
    assert "".join(map(str, pieces)) == stream.reply.text


def test_penalties_keep_the_model_from_repeating_itself(lfm: Runner) -> None:
    options: dict[str, Any] = {**GREEDY, "max_tokens": 60, "repeat_window": -1, "logprobs": 0}
    options["logit_bias"] = endless(lfm)

    def different(**penalty: float) -> int:
        """How many of the tokens differ; both penalties make it more."""
        entries = lfm.chat("Again and again.", **options, **penalty).logprobs
        return len({entry.token for entry in entries or ()})

    plain = different()
    assert different(frequency_penalty=2.0) > plain
    assert different(presence_penalty=2.0) > plain


def test_the_load_counts_tokens(lfm: Runner) -> None:
    before = lfm.load
    usage = lfm.chat("Count me.", max_tokens=7, logit_bias=endless(lfm)).usage
    after = lfm.load
    assert after.generated_tokens - before.generated_tokens == 7
    assert after.prefilled_tokens - before.prefilled_tokens == usage.prefilled_tokens
    assert after.cached_tokens - before.cached_tokens == usage.cached_tokens
    assert (after.running, after.waiting) == (0, 0)
    assert lfm.parallel == 4


# --- many at once --------------------------------------------------------------------------


def assert_as_alone(alone: Reply, other: Reply) -> None:
    """A request follows its lone answer, or leaves it where the two best logits nearly equal.

    Greedy, with ``logprobs=2``. Batched matrix products sum in another order, so equal logits
    may swap: allowed is a step where the lone run's two best are within 0.05.
    """
    assert alone.logprobs is not None
    assert other.logprobs is not None
    for one, two in zip(alone.logprobs, other.logprobs, strict=False):
        if one.token != two.token:
            assert one.top[0][1] - one.top[1][1] < 0.05
            return
        assert abs(one.logprob - two.logprob) < 0.05
    assert len(alone.logprobs) == len(other.logprobs)


def test_together_each_gets_what_it_gets_alone() -> None:
    options = {**GREEDY, "max_tokens": 24, "logprobs": 2}
    with fresh(parallel=4, state_bytes=0) as lfm:
        alone = [lfm.chat(question, **options) for question in QUESTIONS]
        for one, other in zip(alone, lfm.batch(QUESTIONS, **options), strict=True):
            assert_as_alone(one, other)


def test_threads_and_tasks_share_the_runner(lfm: Runner) -> None:
    options = {**GREEDY, "max_tokens": 12, "logprobs": 2}
    alone = [lfm.chat(question, **options) for question in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        for one, other in zip(
            alone, pool.map(lambda q: lfm.chat(q, **options), QUESTIONS), strict=True
        ):
            assert_as_alone(one, other)

    async def main() -> list[Reply]:
        return await asyncio.gather(*(lfm.achat(q, **options) for q in QUESTIONS))

    for one, other in zip(alone, asyncio.run(main()), strict=True):
        assert_as_alone(one, other)


def test_async_streams_and_cancelled_tasks(lfm: Runner) -> None:
    async def main() -> None:
        stream = lfm.astream("Hi", max_tokens=5, logit_bias=endless(lfm))
        text = "".join([str(piece) async for piece in stream])
        assert text.startswith(stream.reply.text)
        task = asyncio.create_task(lfm.achat("Hi", logit_bias=endless(lfm)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: not lfm.scheduler.queue.running)


def wait_until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_cancelling_from_another_thread() -> None:
    with fresh(context=8192) as lfm:
        stream = lfm.stream("Hi", logit_bias=endless(lfm))
        for n, _ in enumerate(stream):
            if n == 3:
                threading.Thread(target=stream.cancel).start()
        assert stream.reply.finish_reason == "cancelled"
        assert stream.reply.usage.completion_tokens < 8000


def test_leaving_a_stream_early_cancels_it(lfm: Runner) -> None:
    for _ in lfm.stream("Hi", logit_bias=endless(lfm)):
        break
    gc.collect()
    wait_until(lambda: not lfm.scheduler.queue.running)


def test_a_long_prompt_does_not_stall_who_decodes() -> None:
    """While a long prompt is read, the other request goes on: a token in every step."""
    with fresh(parallel=2, context=1024) as lfm:
        lfm.scheduler.queue.speed = 1000.0  # as if measured; pieces of 250 tokens at most
        events: list[str] = []

        def read_a_long_one() -> None:
            lfm.chat("worm cell gene " * 100, max_tokens=1)
            events.append("first")

        stream = lfm.stream("Hi", max_tokens=60, logit_bias=endless(lfm), **GREEDY)
        for n, _ in enumerate(stream):
            events.append("token")
            if n == 2:
                long = threading.Thread(target=read_a_long_one)
                long.start()
        long.join()
        at = next(i for i, event in enumerate(events) if event == "first")
        assert events[3:at].count("token") >= 2


def test_who_came_first_is_served_first_and_the_queue_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lfm2gguf.runner.engine.scheduler.MAX_WAITING", 6)
    with fresh(parallel=1, context=512) as lfm:
        order: list[int] = []
        streams = [lfm.stream(f"{i}?", max_tokens=1 + i % 3) for i in range(7)]

        def wait(i: int) -> None:
            streams[i].wait()
            order.append(i)

        with lfm.scheduler.together():
            for stream in streams[:6]:
                stream.start()
            with pytest.raises(RuntimeFailureError, match="6 requests wait"):
                streams[6].start()
        waiting = [threading.Thread(target=wait, args=(i,)) for i in range(6)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        began = [stream.reply.usage.waited for stream in streams[:6]]
    assert sorted(order) == list(range(6))
    assert began == sorted(began)


@pytest.mark.slow
def test_two_hundred_requests_in_any_order() -> None:
    """Random lengths, options and cancellations: nothing lost, nothing mixed, memory flat."""
    draw = random.Random(0)
    with fresh(parallel=4, context=512, state_bytes=2 << 20) as lfm:
        outcomes: dict[int, str] = {}

        def ask(i: int) -> None:
            text = f"number {i} " + "worm " * draw.randrange(60)
            say = f"I am number {i}." + " x" * draw.randrange(12)
            stream = lfm.stream(text, grammar=literally(say), max_tokens=64)
            leave = draw.random() < 0.2
            out = ""
            for piece in stream:
                out += piece.text
                if leave and len(out) > 8:
                    stream.cancel()
            finished = stream.reply.finish_reason
            assert say.startswith(out)
            assert finished == "cancelled" or out == say[: len(out)] != ""
            outcomes[i] = finished

        def round_of(numbers: list[int]) -> None:
            workers = [threading.Thread(target=ask, args=(i,)) for i in numbers]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        numbers = list(range(200))
        draw.shuffle(numbers)
        round_of(numbers[:100])
        before = resident()
        round_of(numbers[100:])
        grown = resident() - before
        assert len(outcomes) == 200
        assert set(outcomes.values()) <= {"stop", "length", "cancelled"}
        assert lfm.memory.state_bytes <= lfm.memory.state_bytes_limit + 4 * 8 * 20_000
        assert grown < 32 << 20
        assert not lfm.scheduler.samplers


def resident() -> int:
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


# --- many turns -----------------------------------------------------------------------------


def test_ten_turns_prefill_only_what_is_new() -> None:
    with fresh(context=1024) as lfm:
        history: list[Any] = [{"role": "system", "content": "You are brief. " * 8}]
        prefilled = []
        for turn in range(10):
            history.append({"role": "user", "content": f"Question {turn}: what is {turn}?"})
            reply = lfm.chat(history, max_tokens=24, seed=turn)
            history.append(reply.message)
            prefilled.append(reply.usage.prefilled_tokens)
    question = len(lfm_tokens("<|im_end|>\n<|im_start|>user\nQuestion 9: what is 9?<|im_end|>\n"))
    assert max(prefilled[1:]) <= question + 12, prefilled
    assert prefilled[0] > max(prefilled[1:])


def lfm_tokens(text: str) -> list[int]:
    from lfm2gguf.llamacpp import Model

    with Model(tiny_gguf()) as model:
        return model.tokenize(text)


def test_rewritten_history_goes_back_to_the_last_common_point() -> None:
    """The thinking of the first answer is dropped from the second prompt."""
    with fresh(context=1024) as lfm:
        first = [{"role": "user", "content": "word " * 120}]
        reply = lfm.chat(first, grammar=literally("<think>Long. Longer.</think>Yes."))
        assert reply.usage.prefilled_tokens > 120
        rewritten = [*first, {"role": "assistant", "content": "Yes."}]
        again = lfm.chat([*rewritten, {"role": "user", "content": "Sure?"}], max_tokens=4)
        assert again.usage.prefilled_tokens < 40
        alone = fresh(context=1024)
        with alone:
            other = alone.chat([*rewritten, {"role": "user", "content": "Sure?"}], max_tokens=4)
        assert other.usage.cached_tokens == 0


def test_a_restored_state_gives_the_answer_of_a_fresh_one() -> None:
    options = {**GREEDY, "max_tokens": 16, "logprobs": 0}
    system = {"role": "system", "content": "Answer about Python. " * 6}
    asked = [[system, {"role": "user", "content": question}] for question in QUESTIONS]
    with fresh(context=1024) as lfm:
        warm = [lfm.chat(messages, **options) for messages in asked]
    for messages, reply in zip(asked, warm, strict=True):
        with fresh(context=1024) as lfm:
            cold = lfm.chat(messages, **options)
        assert cold.usage.cached_tokens == 0
        assert cold.message == reply.message
    assert all(reply.usage.cached_tokens > 30 for reply in warm[1:])


def test_a_system_prompt_is_prefilled_once_for_many() -> None:
    system = {"role": "system", "content": "You know all about worms and cells. " * 12}
    with fresh(context=2048) as lfm:
        first = lfm.chat([system, {"role": "user", "content": "a" * 3}], max_tokens=2)
        others = lfm.batch(
            [[system, {"role": "user", "content": f"{n} is a number"}] for n in range(12)],
            max_tokens=4,
        )
    shared = first.usage.prompt_tokens - 20
    assert all(reply.usage.cached_tokens >= shared - 10 for reply in others)


def test_conversations_that_made_room_come_back_from_the_store() -> None:
    options = {**GREEDY, "max_tokens": 8}
    chats = [[{"role": "user", "content": f"{n}: " + "worm cell " * 30}] for n in range(6)]
    with fresh(parallel=2, context=1024) as lfm:
        for chat in chats:
            chat.append(lfm.chat(chat, **options).message)
            chat.append({"role": "user", "content": "And then?"})
        assert lfm.memory.stored_sequences > 0
        prefilled = [lfm.chat(chat, **options).usage.prefilled_tokens for chat in chats]
        assert max(prefilled) < 40
        assert 0 < lfm.memory.state_bytes <= lfm.memory.state_bytes_limit
    with fresh(parallel=1, context=1024, state_bytes=0) as lfm:
        for chat in chats[:2]:
            lfm.chat(chat, **options)
        assert lfm.memory.stored_sequences == 0


# --- contexts that fill up ---------------------------------------------------------------------


def test_a_prompt_that_does_not_fit() -> None:
    with fresh(context=256) as lfm:
        with pytest.raises(ContextError, match=r"has \d+ tokens, the context 256"):
            lfm.chat("word " * 400)
        with pytest.raises(ContextError, match="last turn alone"):
            lfm.chat("word " * 400, overflow="drop")
        turns: list[Any] = [{"role": "system", "content": "Brief."}]
        for n in range(12):
            turns += [
                {"role": "user", "content": f"{n} " + "word " * 30},
                {"role": "assistant", "content": "Yes."},
            ]
        turns.append({"role": "user", "content": "The last."})
        reply = lfm.chat(turns, overflow="drop", max_tokens=4)
        assert reply.usage.prompt_tokens < 256


def test_an_answer_that_fills_the_context_says_so() -> None:
    with fresh(context=256) as lfm:
        reply = lfm.chat("Hi", logit_bias=endless(lfm))
        assert reply.finish_reason == "context"
        assert reply.usage.prompt_tokens + reply.usage.completion_tokens == 256
        assert lfm.chat("Hi", max_tokens=2).usage.completion_tokens <= 2


@pytest.mark.slow
def test_requests_that_outgrow_the_context_together_all_finish() -> None:
    """Each would fit alone: the youngest gives way and goes on later."""
    with fresh(parallel=4, context=256) as lfm:
        options = {"max_tokens": 150, "logit_bias": endless(lfm), **GREEDY}
        replies = lfm.batch([f"Number {n}?" for n in range(4)], **options)
        assert [r.finish_reason for r in replies] == ["length"] * 4
        alone = [lfm.chat(f"Number {n}?", **options) for n in range(4)]
    same = [a.text[:40] == b.text[:40] for a, b in zip(replies, alone, strict=True)]
    assert sum(same) >= 3


# --- closing, forking, interrupting --------------------------------------------------------------


def test_closing_twice_and_using_what_is_closed() -> None:
    lfm = fresh()
    lfm.close()
    lfm.close()
    uses: list[Any] = [
        lambda: lfm.chat("Hi"),
        lambda: lfm.stream("Hi"),
        lambda: lfm.batch(["Hi"]),
        lambda: lfm.run_tools("Hi", [get_time]),
        lambda: asyncio.run(lfm.achat("Hi")),
        lambda: asyncio.run(lfm.arun_tools("Hi", [get_time])),
        lambda: lfm.complete("x"),
        lambda: lfm.embed("x"),
        lambda: lfm.count_tokens("Hi"),
        lambda: lfm.tokenize("x"),
        lambda: lfm.token_bytes(1),
    ]
    for use in uses:
        with pytest.raises(RuntimeFailureError, match="closed"):
            use()


def test_closing_ends_requests_under_way() -> None:
    lfm = fresh(context=8192)
    stream = lfm.stream("Hi", logit_bias=endless(lfm))
    pieces = iter(stream)
    next(pieces)
    threading.Thread(target=lfm.close).start()
    with pytest.raises(RuntimeFailureError, match="closed"):
        list(pieces)


def test_many_runners_and_one_that_is_forgotten() -> None:
    runners = [fresh(context=256) for _ in range(3)]
    assert len({r.chat("Hi", max_tokens=4, **GREEDY).text for r in runners}) == 1
    thread = runners[0].scheduler.thread
    runners[1].close()
    runners[2].close()
    del runners
    gc.collect()
    wait_until(lambda: not thread.is_alive())


def _in_child(lfm: Runner, results: Any) -> None:
    try:
        lfm.chat("Hi")
    except Lfm2ggufError as error:
        results.put(str(error))
    lfm.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own() -> None:
    context = multiprocessing.get_context("fork")
    with fresh() as lfm:
        results = context.Queue()
        child = context.Process(target=_in_child, args=(lfm, results))
        child.start()
        assert "forked" in results.get(timeout=30)
        child.join(30)
        assert child.exitcode == 0
        assert lfm.chat("Hi", max_tokens=2).usage.completion_tokens <= 2


INTERRUPTED = """
import sys, threading, time
from lfm2gguf.runner import Runner
with Runner(sys.argv[1], device="cpu", threads=1, context=8192) as lfm:
    seen = []
    def watch():
        running = lfm.scheduler.queue.running
        while not (running and 0 < running[0].prefilled < len(running[0].prompt)):
            time.sleep(0.001)
        seen.append(running[0])
        print("prefilling", flush=True)
    threading.Thread(target=watch, daemon=True).start()
    try:
        lfm.chat("word " * 4000, max_tokens=1)
    except KeyboardInterrupt:
        (request,) = seen
        print(request.cancelled, request.prefilled < len(request.prompt), request.generated)
    print(lfm.chat("Hi", max_tokens=3).usage.completion_tokens <= 3, lfm.scheduler.queue.running)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_an_interrupt_in_the_middle_of_prefill_leaves_the_runner_usable() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tiny_gguf())], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "prefilling\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "True True []\nTrue []\n"
    assert process.returncode == 0


SILENT = """
import sys
from lfm2gguf.runner import Runner
from lfm2gguf.errors import OptionError
with Runner(sys.argv[1], device="cpu", threads=1, context=256) as lfm:
    lfm.chat("Hi", max_tokens=1, grammar='root ::= "a"')
    for bad in ("root ::= (", 'root ::= nobody', "root ::= \\"a", 'start ::= "a"'):
        try:
            lfm.chat("Hi", grammar=bad)
        except OptionError as error:
            print(str(error).count("\\n"), error)
    print(file=sys.stderr, end="still there")
"""


def test_c_is_silent_and_its_words_are_in_the_error() -> None:
    command = [sys.executable, "-c", SILENT, str(tiny_gguf())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "still there"
    said = done.stdout.splitlines()
    assert len(said) == 4
    assert all(line.startswith("0 the grammar does not parse: ") for line in said)
    assert "expecting" in said[0]
    assert "nobody" in said[1]
