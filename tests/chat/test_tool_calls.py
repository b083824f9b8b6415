"""Tool calls in every dialect; Python's and JSON's own parsers are the oracles."""

from __future__ import annotations

import ast
import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.chat.dialect import LFM2
from lfm2gguf.chat.tool_calls import (
    BadCall,
    CallReader,
    MalformedError,
    ToolCall,
    parse_calls,
    read_calls,
    write_calls,
)

CALLS = {
    'f(x="1")': [ToolCall("f", {"x": "1"})],
    "[f()]": [ToolCall("f", {})],
    "[]": [],
    "[f(), ]": [ToolCall("f", {})],
    '[get_status(candidate_id="12345"), a.b(x=[1,2], y=True, z=None)]': [
        ToolCall("get_status", {"candidate_id": "12345"}),
        ToolCall("a.b", {"x": [1, 2], "y": True, "z": None}),
    ],
    "[f(a=true, b=false, c=null, d=-1.5e3, e=+2, g=.5, h=1_000)]": [
        ToolCall("f", {"a": True, "b": False, "c": None, "d": -1500.0, "e": 2, "g": 0.5, "h": 1000})
    ],
    "[book(from='Paris', class=\"eco\", to=('A', 'B'))]": [
        ToolCall("book", {"from": "Paris", "class": "eco", "to": ["A", "B"]})
    ],
    '[f(x={"a": [{"b": null}], \'c\': {}})]': [ToolCall("f", {"x": {"a": [{"b": None}], "c": {}}})],
    r"""[f(x="a\"b\n\t\\ \u00e9 \ud83d\ude42", y='it\'s')]""": [
        ToolCall("f", {"x": 'a"b\n\t\\ é 🙂', "y": "it's"})
    ],
    '[f(x="""a\n"b""" "c")]': [ToolCall("f", {"x": 'a\n"bc'})],
    '[f(x="two\nlines, ) ] and }")]': [ToolCall("f", {"x": "two\nlines, ) ] and }"})],
    "[f(a=0x1F, b=-0b11, c=0O1_7, d='a' + \"b\" 'c' +\n r'\\d')]": [
        ToolCall("f", {"a": 31, "b": -3, "c": 15, "d": "abc\\d"})
    ],
    r"""[f(x='C:\Users\name', y="c:\users\new", z='\d+\n')]""": [
        ToolCall("f", {"x": r"C:\Users\name", "y": r"c:\users\new", "z": "\\d+\n"})
    ],
    '[my-tool.run-it(x-y="1")]': [ToolCall("my-tool.run-it", {"x-y": "1"})],
    '[{"name": "f", "arguments": {"x": "1"}}, {"name": "g", "arguments": {}}]': [
        ToolCall("f", {"x": "1"}),
        ToolCall("g", {}),
    ],
    '{"name": "f", "parameters": {"x": null}}': [ToolCall("f", {"x": None})],
    '{"name": "f", "args": {"x": 1}, "id": "c1"}': [ToolCall("f", {"x": 1})],
    '{"type": "tool_use", "name": "f", "input": {"x": 1}}': [ToolCall("f", {"x": 1})],
    '[{"type": "function", "function": {"name": "f", "arguments": "{\\"x\\": 1}"}}]': [
        ToolCall("f", {"x": 1})
    ],
}

MALFORMED = [
    "f",
    "[f(x=1)] and more",
    "[f(1)]",
    "[f(x=g())]",
    "[f(x=y)]",
    "[f(x=1, x=2)]",
    "[f(x={1: 2})]",
    "[f(x=1 2)]",
    "__import__('os').system('true')",
    '[f(x="\\U00110000")]',
    "[f(x=0x)]",
    '[f(x="a" + y)]',
    '[{"arguments": {}}]',
    '[{"name": "f", "x": 1}]',
    '[{"name": "f", "kwargs": {"x": 1}}]',
    '[{"name": "f", "arguments": [1]}]',
    '[{"name": "f", "arguments": "{"}]',
    '[{"name": "f"}] more',
    "[f(x=" + "[" * 200 + "]" * 200 + ")]",
    "[f(x=" + "9" * 5000 + ")]",
]


@pytest.mark.parametrize("text", CALLS)
def test_each_dialect_is_read(text: str) -> None:
    assert parse_calls(text) == CALLS[text]
    assert parse_calls(f" \n{text}\n ") == CALLS[text]


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_call_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_calls(text)


@pytest.mark.parametrize("text", CALLS)
def test_the_beginning_of_a_span_holds_the_beginning_of_its_calls(text: str) -> None:
    for length in range(len(text)):
        calls, _ = read_calls(text[:length])
        assert calls == CALLS[text][: len(calls)], text[:length]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
names = st.from_regex(r"[a-z_]\w{0,8}(\.[a-z]\w{0,4})?", fullmatch=True)
arguments = st.dictionaries(
    st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), values, max_size=3
)
calls_of = st.lists(st.builds(ToolCall, names, arguments), max_size=3)


@pytest.mark.slow
@given(calls_of)
def test_calls_written_are_read_back(calls: list[ToolCall]) -> None:
    text = write_calls(calls)
    start, end = LFM2.calls
    assert text.startswith(start)
    assert text.endswith(end)
    assert parse_calls(text[len(start) : -len(end)]) == calls


def test_a_bad_call_is_written_as_it_was() -> None:
    calls = [ToolCall("f", {"x": 1}), BadCall('g({"x": )', "not JSON")]
    assert write_calls(calls) == f'{LFM2.calls[0]}[f(x=1), g({{"x": )]{LFM2.calls[1]}'


@pytest.mark.slow
@given(values)
def test_python_and_json_spell_the_same_values(value: Any) -> None:
    assert parse_calls(f"[f(x={value!r})]") == [ToolCall("f", {"x": value})]
    assert parse_calls(f"[f(x={json.dumps(value)})]") == [ToolCall("f", {"x": value})]


@given(st.text() | st.text(alphabet="[]{}()=,:*'\"\\\\ fxbr1.\nuU"))
def test_no_text_does_worse_than_be_malformed(text: str) -> None:
    calls, bad = read_calls(text)
    assert all(isinstance(call, ToolCall) for call in calls)
    assert all(call.reason for call in bad)
    json.dumps([call.arguments for call in calls], allow_nan=False)


@pytest.mark.parametrize(
    "text",
    [
        '[f(x="' + r"it's \"so\" " * 20_000 + '"), g()]',
        '{"name": "f", "arguments": {"x": "' + "(a" * 100_000 + '"}}',
        "[a.b" + "'a' " * 50_000,
        '[f(x="' + "a" * 100_000 + '" 1), ' + "g(), " * 20_000,
    ],
    ids=["a string", "JSON", "no call", "not to be read"],
)
def test_small_pieces_cost_no_more_than_their_text(text: str) -> None:
    """Each was read again from its beginning with every piece: 24,000 characters took seconds."""
    reader, began = CallReader(), time.process_time()
    for i in range(0, len(text), 7):
        reader.feed(text[i : i + 7])
    assert time.process_time() - began < 5


@given(st.text(alphabet="[]{}()=,'\" fx1", max_size=60), st.lists(st.integers(0, 60), max_size=9))
def test_calls_are_certain_before_their_span_ends(text: str, where: list[int]) -> None:
    text = f"[f(x='a'), f(x={text}), g(y=1)]"
    reader = CallReader()
    edges = [0, *sorted(min(cut, len(text)) for cut in where), len(text)]
    early = [call for a, b in itertools.pairwise(edges) for call in reader.feed(text[a:b])]
    late = [item for item in reader.close() if isinstance(item, ToolCall)]
    assert early + late == read_calls(text)[0]


@given(st.text(alphabet="[]{}()=,'\"\\ fx1.\nuU", max_size=40))
def test_what_python_reads_as_calls_is_read_alike(text: str) -> None:
    """Where both parsers accept a list of calls with keywords, they agree."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        expected = [
            ToolCall(ast.unparse(n.func), {k.arg: ast.literal_eval(k.value) for k in n.keywords})  # type: ignore[attr-defined,misc]
            for n in tree.elts  # type: ignore[attr-defined]
        ]
        got = parse_calls(text)
    except (SyntaxError, ValueError, AttributeError, MalformedError, MemoryError):
        return
    assert got == [ToolCall(c.name, json.loads(json.dumps(c.arguments))) for c in expected]
