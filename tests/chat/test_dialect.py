"""A dialect is a value: another one is read, written, forced and guarded without new code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lfm2gguf.chat import dialect as dialects
from lfm2gguf.chat.dialect import LFM2, CallStyle, Dialect, dialect_of
from lfm2gguf.chat.guard import CUT, Guard
from lfm2gguf.chat.template import Template
from lfm2gguf.chat.tool_calls import ToolCall, parse_calls, write_calls
from lfm2gguf.export.ollama import go_template
from lfm2gguf.runner import Runner, call_grammar
from lfm2gguf.runner.answer.pieces import Answer
from tests.making.models import tiny_gguf

# Calls as JSON between tags of XML, as Hermes and Qwen write them.
OTHER = Dialect(
    turn=("<|im_start|>", "<|im_end|>"),
    thinking=("[THINK]", "[/THINK]"),
    calls=("<tool_call>", "</tool_call>"),
    ends=("<|im_end|>",),
    style=CallStyle("[", "]", '{"name": "NAME", "arguments": {', "}}", '"KEY": ', json.dumps),
)
CALLS = [ToolCall("f", {"x": 'a"b', "y": [1, None]}), ToolCall("g.h", {})]
TOOL = {"name": "f", "parameters": {"properties": {"x": {"enum": ["a"]}}, "required": ["x"]}}
CHATML = (
    "{# <tool_call> #}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("dialect", [LFM2, OTHER])
def test_what_is_written_is_read(dialect: Dialect) -> None:
    text = write_calls(CALLS, dialect)
    start, end = dialect.calls
    assert parse_calls(text.removeprefix(start).removesuffix(end)) == CALLS
    think, thought = dialect.thinking
    answer = Answer(dialect=dialect)
    for character in f"{think}Hm.{thought}Now: {text}":
        answer.feed(character)
    answer.finish()
    assert (answer.thinking, answer.text, answer.calls) == ("Hm.", "Now: ", CALLS)


def test_json_in_tags() -> None:
    assert write_calls(CALLS[1:], OTHER) == (
        '<tool_call>[{"name": "g.h", "arguments": {}}]</tool_call>'
    )


@pytest.mark.parametrize("dialect", [LFM2, OTHER])
def test_a_grammar_forces_the_dialect_s_calls(dialect: Dialect) -> None:
    grammar = call_grammar([TOOL], several=False, dialect=dialect)
    with Runner(tiny_gguf(), device="cpu", threads=1, context=256) as lfm:
        text = lfm.complete("Go.", grammar=grammar, max_tokens=200).text
    assert text == write_calls([ToolCall("f", {"x": "a"})], dialect)


def test_the_template_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "DIALECTS", (LFM2, OTHER))
    assert dialect_of(CHATML) is OTHER
    assert dialect_of("<|tool_call_start|>") is dialect_of("") is dialect_of(None) is LFM2
    said = {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}], "thinking": "Hm."}
    prompt = Template(CHATML).prompt([{"role": "user", "content": "?"}, said])
    call = '<tool_call>[{"name": "f", "arguments": {}}]</tool_call>'
    assert f"[THINK]Hm.[/THINK]{call}<|im_end|>" in prompt
    made = go_template(CHATML)
    assert "<tool_call>[" in made
    assert '{"name": "{{ $call.Function.Name }}", "arguments": {' in made
    assert "[THINK]{{ .Thinking }}[/THINK]" in made


def test_the_guard_spares_the_dialect_s_own_markers() -> None:
    guard = Guard({"<tool_call>", "<|im_end|>"}, OTHER)
    (message,) = guard([{"role": "assistant", "content": "<tool_call><|im_end|>"}])
    assert message["content"] == f"<tool_call><{CUT}|im_end|>"


def test_no_marker_stands_outside_of_the_table() -> None:
    """A further dialect is a row of chat/dialect.py, and a parser if it has a syntax of its own."""
    package = Path(dialects.__file__).parents[1]
    markers = {*LFM2.turn, *LFM2.thinking, *LFM2.calls}
    known = {"chat/dialect.py", "checkpoint/tokenizer.py"}  # the latter: a vocabulary's tokens
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(f'"{marker}' in line for marker in markers)
    }
    assert found == known
