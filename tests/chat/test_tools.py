"""Functions described as transformers describes them, and calls checked against schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.chat.tool_calls import ToolCall
from lfm2gguf.chat.tools import as_tools, function_schema, schema_problem
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
