"""With tools, a call is bound to what was declared once it is begun; all else is free."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lfm2gguf.chat.dialect import LFM2
from lfm2gguf.chat.tools import as_tools
from lfm2gguf.llamacpp import LazyGrammar, Model, Sampler
from lfm2gguf.llamacpp.lazy import Watch
from lfm2gguf.options import Options
from lfm2gguf.runner import Runner
from lfm2gguf.runner.answer.grammar import lazy_calls
from tests.making.models import tiny_gguf

TOOLS: list[dict[str, Any]] = [
    {
        "name": "get.status",
        "parameters": {
            "type": "object",
            "properties": {"path": {"enum": ["a", "b"]}, "deep": {"type": "boolean"}},
            "required": ["path"],
        },
    },
    {"name": "now"},
]
START, END = LFM2.calls
LAZY = LazyGrammar("", START, END, LFM2.thinking)


@pytest.fixture(scope="module")
def lfm() -> Iterator[Runner]:
    with Runner(tiny_gguf(), device="cpu", threads=1) as runner:
        yield runner


def hot(lfm: Runner, tools: Any, seed: int, **options: Any) -> Any:
    """A hot answer that likes to begin calls."""
    marker = lfm.tokens.encode(START, bos=False)[0]
    given = {"temperature": 2.0, "min_p": 0.0, "top_k": 0, "top_p": 1.0, "max_tokens": 120}
    return lfm.chat("Hi", tools=tools, seed=seed, logit_bias={marker: 12.0}, **given, **options)


def test_calls_fit_the_declared_tools(lfm: Runner) -> None:
    replies = [hot(lfm, TOOLS, seed) for seed in range(6)]
    calls = [call for reply in replies for call in reply.tool_calls]
    assert len(calls) > 4
    assert {call.name for call in calls} == {"get.status", "now"}
    cut = "the answer ends inside of a tool call"
    assert all(bad.reason == cut for reply in replies for bad in reply.bad_calls)


def test_what_stands_around_calls_is_free(lfm: Runner) -> None:
    """Text comes between calls, and after them, of a hot model."""
    assert any(len(hot(lfm, [TOOLS[1]], seed).text) > 20 for seed in range(4))


def test_a_grammar_of_the_caller_s_own_goes_first(lfm: Runner) -> None:
    reply = lfm.chat("Hi", tools=TOOLS, grammar=f"root ::= {json.dumps(START + '[f()]' + END)}")
    assert reply.text == START + "[f()]" + END


def test_a_schema_that_no_grammar_can_express_binds_the_names(lfm: Runner) -> None:
    odd = {"name": "odd", "parameters": {"properties": {"x": {"type": "colour"}}}}
    replies = [hot(lfm, [odd], seed) for seed in range(3)]
    written = "".join(bad.text for reply in replies for bad in reply.bad_calls)
    called = [call.name for reply in replies for call in reply.tool_calls]
    assert called or written.startswith("odd(")
    assert set(called) <= {"odd"}


VALUES = ['"a"', "'a'", "True", "false", "None", "[1, 'b\\'']", '{"k": null}', "'<b>'", "-1.5"]
NO_VALUES = ["b", "'a\n'", "set()", "1 +", "'<|im_end|>'"]


@pytest.mark.parametrize(
    ("value", "allowed"), [*((v, 1) for v in VALUES), *((v, 0) for v in NO_VALUES)]
)
def test_values_may_be_python_s_or_json_s(lfm: Runner, value: str, allowed: int) -> None:
    check_value({}, value, allowed=bool(allowed))


CHOICES = ["a", "b'c", 'b"d', True, None, 7]
ENUM = ['"a"', "'a'", '"b\'c"', "'b\\'c'", "'b\"d'", "True", "true", "None", "null", "7"]


@pytest.mark.parametrize(
    ("value", "allowed"), [*((v, 1) for v in ENUM), *((v, 0) for v in ('"c"', "'c'", "8", "a"))]
)
def test_an_enum_s_values_too(lfm: Runner, value: str, allowed: int) -> None:
    check_value({"enum": CHOICES}, value, allowed=bool(allowed))


def check_value(schema: dict[str, Any], value: str, *, allowed: bool) -> None:
    """llama.cpp's own grammar is asked, token by token."""
    lazy = lazy_calls(as_tools([{"name": "f", "parameters": {"properties": {"x": schema}}}]))
    assert lazy
    with Model(tiny_gguf()) as model:
        tokens = model.tokenize(f"[f(x={value})]{END}")
        sampler = Sampler(model, Options(grammar=lazy.text, temperature=0.0))
        drawn = []
        for token in tokens:
            logits = np.zeros(model.n_vocab, np.float32)
            logits[token] = 9
            drawn.append(sampler.sample(logits))
            if drawn[-1] != token:
                break
        sampler.close()
    assert (drawn == tokens) == allowed


@pytest.mark.parametrize(
    ("tokens", "applied"),
    [
        (["Hi", START, "[f", "()]", END, "Bye"], [0, 1, 1, 1, 0, 0]),
        ([START, "[f()]", END, START, "["], [1, 1, 0, 1, 1]),
        (["\n", "<th", "ink>", START, "</think>", START, "["], [0, 0, 0, 0, 0, 1, 1]),
        (["No <think>", START, "["], [0, 1, 1]),
        (["<|tool_", "call_start", "|>", "[", "<|tool_call_end", "|>"], [0, 0, 1, 1, 1, 0]),
        ([START + "[", "f"], [0, 0]),
    ],
)
def test_where_a_lazy_grammar_applies(tokens: list[str], applied: list[int]) -> None:
    watch, seen = Watch(LAZY), []
    for token in tokens:
        watch.follow(token)
        seen.append(int(watch.applies))
    assert seen == applied


def test_thinking_that_the_prompt_has_opened_is_free() -> None:
    watch = Watch(LazyGrammar("", START, END, LFM2.thinking, thinks=True))
    watch.follow(START)
    assert not watch.applies
    watch.follow("</think>")
    watch.follow(START)
    assert watch.applies
