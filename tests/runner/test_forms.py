"""Answers of a given form: grammars of tool calls and of JSON, with the real library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lfm2gguf.chat.dialect import LFM2
from lfm2gguf.errors import OptionError
from lfm2gguf.runner import Runner, ToolCall, call_grammar
from tests.making.models import tiny_gguf

TOOLS: list[dict[str, Any]] = [
    {
        "name": "get.status",
        "parameters": {
            "type": "object",
            "properties": {
                "where": {"type": "string"},
                "path": {"enum": ["a\\b", 'é\n"q"']},
                "limit": {"type": "integer"},
                "tree": {"$ref": "#/$defs/Item"},
                "note": {"description": "says nothing of the value"},
            },
            "required": ["path", "limit"],
            "$defs": {"Item": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "maxItems": 2}},
        },
    },
    {"name": "now"},
    {
        "name": "switch",
        "parameters": {
            "properties": {
                "on": {"type": "boolean"},
                "level": {"type": "number", "nullable": True},
                "kind": {"$ref": "#/$defs/Item"},
            },
            "$defs": {"Item": {"const": None}},
        },
    },
]


@pytest.fixture(scope="module")
def lfm() -> Iterator[Runner]:
    with Runner(tiny_gguf(), device="cpu", threads=1) as runner:
        yield runner


def hot_answer(lfm: Runner, grammar: str, seed: int) -> Any:
    """A hot answer, so that the grammar is what shapes it."""
    options: dict[str, Any] = {"temperature": 1.5, "min_p": 0.0, "max_tokens": 300, "seed": seed}
    return lfm.chat("Where is candidate 7?", tools=TOOLS, grammar=grammar, **options)


@pytest.mark.slow
@pytest.mark.parametrize("several", [True, False])
def test_forced_calls_fit_their_schemas(lfm: Runner, several: bool) -> None:
    whole = 0
    for seed in range(12):
        reply = hot_answer(lfm, call_grammar(TOOLS, several=several), seed)
        if reply.finish_reason != "stop":
            continue  # a string that did not end
        whole += 1
        assert reply.tool_calls
        assert not reply.bad_calls
        assert reply.text == ""
        assert several or len(reply.tool_calls) == 1
    assert whole >= 3


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool["name"])
def test_a_named_tool(lfm: Runner, tool: dict[str, Any]) -> None:
    replies = [hot_answer(lfm, call_grammar([tool], several=False), seed) for seed in range(8)]
    whole = [reply for reply in replies if reply.finish_reason == "stop"]
    assert whole
    assert {call.name for reply in whole for call in reply.tool_calls} == {tool["name"]}


def test_calls_or_else_json(lfm: Runner) -> None:
    schema = {"type": "object", "properties": {"n": {"const": 7}}, "required": ["n"]}
    grammar = call_grammar([TOOLS[1]], several=False, otherwise=schema)
    marker = lfm.tokens.encode(LFM2.calls[0], bos=False)[0]
    for bias, text, calls in ((-100.0, '{"n":7}', ()), (100.0, "", (ToolCall("now", {}),))):
        reply = lfm.chat("Hi", tools=TOOLS, grammar=grammar, logit_bias={marker: bias})
        assert (reply.text.replace(" ", ""), reply.tool_calls) == (text, calls)


@pytest.mark.parametrize("value", ["a\\b", 'a"b', "é\n\t", "<|im_end|>", "日本"])
def test_constants_come_out_as_they_are(lfm: Runner, value: str) -> None:
    assert json.loads(lfm.chat("Hi", json_schema={"const": value}).text) == value


def test_strings_hold_no_markers_and_no_control_characters(lfm: Runner) -> None:
    for seed in range(6):
        text = lfm.chat(
            "Hi", json_schema={"type": "string"}, temperature=3.0, min_p=0.0, top_k=0, top_p=1.0,
            max_tokens=80, seed=seed,
        ).text  # fmt: skip
        assert "<|" not in text
        assert all(char >= " " for char in text)


@pytest.mark.parametrize(
    "options",
    [
        {"json_schema": {"type": "string", "maxLength": 100_000}},
        {"json_schema": {"type": "array", "items": {"const": ")" * 9}, "maxItems": 100_000}},
        {"grammar": "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000},
        {"grammar": 'root ::= "' + ")" * 99_000 + '"' + "(" * 99_000 + '"a"' + ")" * 99_000},
    ],
)
def test_what_would_overflow_the_parsers_stack_is_refused(
    lfm: Runner, options: dict[str, Any]
) -> None:
    with pytest.raises(OptionError, match=r"nests deeper|can be had"):
        lfm.chat("Hi", **options)


def test_a_schema_no_grammar_can_express() -> None:
    with pytest.raises(OptionError, match="cannot be turned into a grammar"):
        call_grammar([{"name": "f", "parameters": {"properties": {"x": {"type": "colour"}}}}])


@pytest.mark.parametrize("keyword", ["required", "properties", "type", "additionalProperties"])
def test_a_keyword_that_is_null_is_not_there(keyword: str) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    given = {"name": "f", "parameters": {**schema, keyword: None}}
    without = {"name": "f", "parameters": {k: v for k, v in schema.items() if k != keyword}}
    assert call_grammar([given]) == call_grammar([without])
