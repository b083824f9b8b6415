"""Bytes to text to pieces: whatever the cuts, the same answer."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.chat.tool_calls import ToolCall
from lfm2gguf.runner.answer.pieces import Answer, Piece
from lfm2gguf.runner.engine.text import TextStream
from tests.chat.call_texts import IN_THE_WILD, LLAMA_CPP, TOOLS

CALL = '<|tool_call_start|>[f(x="1"), g()]<|tool_call_end|>'
F, G = ToolCall("f", {"x": "1"}), ToolCall("g", {})


def collect(
    text: str,
    cuts: Sequence[int],
    thinks: bool | None = None,
    tools: Collection[str] | None = None,
) -> tuple[Answer, list[Piece]]:
    answer = Answer(thinks=thinks, tools=tools)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [piece for a, b in itertools.pairwise(edges) for piece in answer.feed(text[a:b])]
    return answer, pieces + answer.finish()


cuts = st.lists(st.integers(0, 120), max_size=12)


@given(cuts)
def test_thinking_calls_and_text_are_told_apart(where: list[int]) -> None:
    text = f"\n<think>Shall I write {CALL}? < No.</think>{CALL} Done <|not a marker"
    answer, pieces = collect(text, where)
    assert answer.thinking == f"Shall I write {CALL}? < No."
    assert answer.text == " Done <|not a marker"
    assert answer.calls == [F, G]
    assert not answer.bad_calls
    assert "".join(piece.text for piece in pieces) == answer.text
    assert "".join(piece.thinking for piece in pieces) == answer.thinking
    assert [piece.call for piece in pieces if piece.call] == [F, G]


@given(st.text(), cuts)
def test_plain_text_comes_out_as_it_went_in(text: str, where: list[int]) -> None:
    if "<think>" in text or "<|tool" in text:
        return
    answer, pieces = collect(text, where)
    assert answer.text == "".join(map(str, pieces)) == text


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("before", ["[", "\n [", ""])
def test_a_call_is_handed_out_before_its_span_ends(before: str, size: int) -> None:
    answer = Answer()
    text = f'<|tool_call_start|>{before}f(x="1"), '
    pieces = [p for i in range(0, len(text), size) for p in answer.feed(text[i : i + size])]
    assert pieces == [Piece(call=F)]


@given(cuts)
def test_an_echo_is_dropped_whatever_the_tools(where: list[int]) -> None:
    body = CALL.removeprefix("<|tool_call_start|>")
    answer, _ = collect(CALL + body + " Done", where)
    assert (answer.text, answer.calls) == (" Done", [F, G])


@pytest.mark.parametrize(("text", "said", "calls"), [*LLAMA_CPP, *IN_THE_WILD])
def test_what_models_write_is_read_however_it_is_cut(
    text: str, said: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    expected = [ToolCall(name, arguments) for name, arguments in calls]
    for size in (len(text), 1, 7):
        answer, pieces = collect(text, range(0, len(text), size), tools=TOOLS)
        assert (answer.text, answer.calls) == (said, expected)
        assert "".join(piece.text for piece in pieces) == said
        assert [piece.call for piece in pieces if piece.call] == expected


@pytest.mark.parametrize(("text", "said", "calls"), IN_THE_WILD)
def test_what_cannot_be_read_is_reported(
    text: str, said: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    answer, _ = collect(text, [], tools=TOOLS)
    written = text.count("(") + text.count('"name"') if text.startswith(CALL[:19]) else 0
    assert written == 0 or calls or answer.bad_calls
    assert all(bad.reason and bad.text for bad in answer.bad_calls)


@given(st.sampled_from([*LLAMA_CPP, *IN_THE_WILD]), cuts)
def test_a_call_that_was_handed_out_stays(
    case: tuple[str, str, list[tuple[str, dict[str, Any]]]], where: list[int]
) -> None:
    answer, pieces = collect(case[0], where, tools=TOOLS)
    assert [piece.call for piece in pieces if piece.call] == answer.calls


def test_good_siblings_of_a_bad_call_are_kept() -> None:
    answer, pieces = collect('<|tool_call_start|>[f(x="1"), g(]<|tool_call_end|>text', [30])
    assert answer.calls == [F]
    assert answer.text == "text"
    [bad] = answer.bad_calls
    assert bad.text == "g(]"
    assert "name is expected" in bad.reason
    assert [piece.text for piece in pieces if piece.text] == ["text"]


@given(cuts)
def test_without_tools_all_is_text(where: list[int]) -> None:
    answer, _ = collect(f"Well {CALL} Done", where, tools=())
    assert (answer.text, answer.calls, answer.bad_calls) == (f"Well {CALL} Done", [], [])


@given(cuts)
def test_a_call_to_no_tool_is_text(where: list[int]) -> None:
    answer, pieces = collect(f"Well {CALL} Done", where, tools=("h",))
    assert (answer.text, answer.calls) == (f"Well {CALL} Done", [])
    assert "".join(map(str, pieces)) == answer.text
    assert [bad.reason for bad in answer.bad_calls] == [
        "there is no tool 'f'", "there is no tool 'g'",
    ]  # fmt: skip


def test_beside_a_tool_a_call_to_none_is_text() -> None:
    answer, _ = collect(f"{CALL} Done", [], tools=("f",))
    assert (answer.text, answer.calls) == ("g() Done", [F])
    assert [bad.call for bad in answer.bad_calls] == [G]


@pytest.mark.parametrize("start", ["[f(x=", '[f(x="1"', "[f(x='a 'b'"])
def test_an_unfinished_span_is_reported(start: str) -> None:
    answer, _ = collect(f"Well <|tool_call_start|>{start}", [])
    assert (answer.text, answer.calls) == ("Well ", [])
    assert "ends inside" in answer.bad_calls[0].reason


def test_the_prompt_may_have_opened_the_thinking() -> None:
    answer, _ = collect("Hm.</think>Yes.", [], thinks=True)
    assert (answer.thinking, answer.text) == ("Hm.", "Yes.")


def test_think_in_the_middle_is_text() -> None:
    answer, _ = collect("The tag <think> is text.", [])
    assert answer.text == "The tag <think> is text."


@pytest.mark.parametrize("text", ["", "<thi", "<think>", " "])
def test_short_answers(text: str) -> None:
    answer, _ = collect(text, [1])
    assert answer.text + ("<think>" if answer.thinks else "") == text


@given(st.text(), st.lists(st.integers(0, 200), max_size=20))
def test_characters_are_never_cut(text: str, where: list[int]) -> None:
    data = text.encode("utf-8", "replace")
    stream = TextStream()
    edges = [0, *sorted(min(cut, len(data)) for cut in where), len(data)]
    parts = [stream.feed(data[a:b]) for a, b in itertools.pairwise(edges)]
    parts.append(stream.finish())
    assert "".join(parts) == data.decode()
    assert "\ufffd" not in "".join(parts) or "\ufffd" in text


@given(
    st.text("ab<|", max_size=30),
    st.lists(st.text("ab<|", min_size=1, max_size=4), max_size=3),
    cuts,
)
def test_stop_strings_are_found_across_cuts(text: str, stop: list[str], where: list[int]) -> None:
    stream = TextStream(stop)
    edges = [0, *sorted(min(cut, len(text)) for cut in where), len(text)]
    out = ""
    for a, b in itertools.pairwise(edges):
        out += stream.feed(text[a:b].encode())
        if stream.stopped is not None:
            break
    else:
        out += stream.finish()
    first = min((text.find(s) for s in stop if s in text), default=len(text))
    assert (stream.stopped is not None) == any(s in text for s in stop)
    if stream.stopped is None or len({len(s) for s in stop}) == 1:
        assert out == text[:first]
    assert not any(s in out for s in stop)


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    stream = TextStream()
    assert stream.feed(b"a\xff") + stream.feed(b"\xe6\x97") + stream.finish() == "a\ufffd\ufffd"
