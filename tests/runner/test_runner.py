"""The Runner, with the real library and the example model."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import numpy as np
import pytest

from lfm2gguf.errors import OptionError
from lfm2gguf.runner import Runner, ToolCall
from tests.making.runners import CALL, GREEDY, endless, get_time, literally


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
        {"max_tokens": -1},
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


@pytest.mark.parametrize("prompt", [b"Hi", [1.0, 2.0], [True], ["a"], [None], [-1], [10**9]])
def test_a_prompt_that_is_neither_text_nor_tokens(lfm: Runner, prompt: Any) -> None:
    """Found before the step that it would end, and with it the requests of others."""
    with pytest.raises(OptionError):
        lfm.complete(prompt, max_tokens=1)


def test_tokens_in_any_iterable(lfm: Runner) -> None:
    ids = lfm.tokenize("def f(x):")
    asked: list[Any] = [ids, tuple(ids), iter(ids), np.array(ids), np.array(ids, np.uint16)]
    assert len({lfm.complete(p, max_tokens=5, temperature=0).text for p in asked}) == 1


def test_one_text_is_no_batch(lfm: Runner) -> None:
    with pytest.raises(OptionError, match="use chat"):
        lfm.batch("Hi", max_tokens=1)


# --- tools -------------------------------------------------------------------------------


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


def test_only_calls_of_declared_tools_are_calls(lfm: Runner) -> None:
    for tools in ([], [{"name": "other"}]):
        reply = lfm.chat("Time?", tools=tools, grammar=literally(CALL + "Done."))
        assert (reply.text, reply.tool_calls) == (CALL + "Done.", ())
        assert reply.message == {"role": "assistant", "content": CALL + "Done."}
        assert [bad.reason for bad in reply.bad_calls] == (
            ["there is no tool 'get_time'"] if tools else []
        )


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
    assert "3 is not of type string" in history[-1]["content"]


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
        with pytest.raises(OptionError, match="not a token id"):
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
