"""Functions described as transformers describes them, and calls checked against schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.chat.dialect import LFM2
from lfm2gguf.chat.schemas import schema_problem
from lfm2gguf.chat.tool_calls import ToolCall, read_calls, write_calls
from lfm2gguf.chat.tools import as_tools, function_schema
from lfm2gguf.errors import OptionError
from tests.golden.template_cases import FUNCTIONS, WEATHER, WRAPPED, plan

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "templates.json").read_text("utf-8"))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: str(f.__name__))
def test_described_as_transformers_does(function: Callable[..., Any]) -> None:
    expected = GOLDEN["schemas"][function.__name__]
    expected["function"].pop("return", None)  # no template shows what a tool returns
    assert function_schema(function) == expected


def test_an_undocumented_function_is_described_too() -> None:
    def add(a: int, b: int = 1) -> int:
        return a + b

    assert function_schema(add)["function"] == {
        "name": "add",
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a"],
        },
    }


def untyped(a): ...  # type: ignore[no-untyped-def]
def starred(*a: int) -> None: ...
def strange(a: Path) -> None: ...


@pytest.mark.parametrize("tool", [untyped, starred, strange, 3, {}, {"function": {}}])
def test_what_cannot_be_described_is_refused(tool: Any) -> None:
    with pytest.raises(OptionError, match="tool"):
        as_tools([tool])


def test_schemas_in_both_forms_keep_what_was_given() -> None:
    tools = as_tools([WEATHER, WRAPPED])
    assert [tool.schema for tool in tools.values()] == [WEATHER, WRAPPED]
    with pytest.raises(OptionError, match="same name"):
        as_tools([WEATHER, WEATHER])


GOOD = {"days": 2, "places": ["a"], "mood": "calm", "weights": {"a": 1}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"days": 2.0}, None),
        ({"limit": None}, None),
        ({"both": {"a": 1}}, None),
        ({"either": "x", "anything": [1]}, None),
        ({"days": "2"}, "'2' is not of type integer"),
        ({"days": True}, "not of type integer"),
        ({"places": "a"}, "not of type array"),
        ({"places": [1]}, r"places\[0\]"),
        ({"mood": "sad"}, "not one of"),
        ({"weights": {"a": "b"}}, r"weights\.a"),
        ({"both": 3}, "both"),
        ({"either": []}, "integer or string"),
        ({"more": 1}, "there is no 'more'"),
    ],
)
def test_arguments_are_checked(changes: dict[str, Any], problem: str | None) -> None:
    tool = as_tools([plan])["plan"]
    found = tool.problem(ToolCall("plan", {**GOOD, **changes}))
    assert (found is None) == (problem is None)
    assert re.search(problem or "", found or ""), found


def test_a_missing_argument_and_bounds() -> None:
    tool = as_tools([plan])["plan"]
    assert "'days' is missing" in str(tool.problem(ToolCall("plan", {})))
    assert "below" in str(schema_problem(1, {"minimum": 2}, "x"))
    assert "above" in str(schema_problem(3, {"maximum": 2}, "x"))
    assert "is not" in str(schema_problem(3, {"const": 2}, "x"))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (True, "parameters: True is not a JSON schema"),
        ([1], "is not a JSON schema"),
        ({"type": {"a": 1}}, "parameters.type: .* is not a type's name"),
        ({"type": ["string", 3]}, "is not a type's name"),
        ({"required": 3}, "parameters.required: 3 is not a list of names"),
        ({"required": [[]]}, "is not a list of names"),
        ({"properties": []}, "parameters.properties: .* is not an object"),
        ({"properties": {"a": 3}}, "parameters.properties.a: 3 is not a JSON schema"),
        ({"properties": {"a": {"enum": {}}}}, r"properties.a.enum: \{\} is not a list"),
        ({"properties": {"a": {"minimum": "1"}}}, "a.minimum: '1' is not a number"),
        ({"properties": {"a": {"maximum": True}}}, "a.maximum: True is not a number"),
        ({"anyOf": {}}, "parameters.anyOf: "),
        ({"anyOf": [3]}, r"parameters.anyOf\[0\]: 3 is not a JSON schema"),
        ({"items": {"oneOf": 3}}, "parameters.items.oneOf: 3 is not a list"),
    ],
)
def test_a_keyword_of_a_wrong_kind_is_refused_at_the_door(parameters: Any, said: str) -> None:
    described = {"name": "f", "parameters": parameters}
    with pytest.raises(OptionError, match=f"the tool 'f': .*{said}"):
        as_tools([{"type": "function", "function": described}])


def test_a_schema_that_nests_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(2000):
        schema = {"items": schema}
    with pytest.raises(OptionError, match="schemas nest deeper than"):
        as_tools([{"name": "f", "parameters": schema}])


@pytest.mark.parametrize("parameters", [
    None, {"type": None, "enum": None, "anyOf": None, "properties": None, "minimum": None},
    {"required": None, "properties": {"a": True, "b": {"type": None, "const": 3}}},
])  # fmt: skip
def test_a_keyword_that_is_null_is_not_there(parameters: Any) -> None:
    tool = as_tools([{"name": "f", "parameters": parameters}])["f"]
    assert tool.problem(ToolCall("f", {})) is None


def test_schemas_that_allow_all_or_nothing() -> None:
    parts = {"type": "object", "properties": {"a": True, "b": False}}
    tool = as_tools([{"name": "f", "parameters": parts}])["f"]
    assert tool.problem(ToolCall("f", {"a": [1]})) is None
    assert "f.b: nothing may stand there" in str(tool.problem(ToolCall("f", {"b": 1})))


@pytest.mark.parametrize("name", ["f", "a.b", "a-b", 'f"', "f(x", "<|tool_call_end|>", "é", "1"])
@pytest.mark.parametrize("key", ["x", "my key", "<|tool_call_end|>", "a=b", "", "class", "**", "1"])
def test_calls_that_are_written_are_read_as_the_same(name: str, key: str) -> None:
    calls = [ToolCall(name, {key: [1, "a"], "y": None}), ToolCall("g", {})]
    start, end = LFM2.calls
    written = write_calls(calls)
    assert read_calls(written.removeprefix(start).removesuffix(end)) == (calls, [])


@pytest.mark.parametrize("schema", [{}, {"type": "string"}, {"const": 1}, {"enum": [1]}])
@pytest.mark.parametrize("form", ["{'a': 0}", "[0]"])
def test_a_value_that_nests_too_deep_is_said(schema: dict[str, Any], form: str) -> None:
    """To go through it, to compare it or to show it would end in a RecursionError."""
    value: Any = 0
    for _ in range(100_000):
        value = {"a": value} if "a" in form else [value]
    assert "nests too deep" in str(schema_problem(value, {"properties": {"x": schema}}, "x"))
    assert "nests too deep" in str(schema_problem({"x": value}, {"properties": {"x": schema}}, "x"))
