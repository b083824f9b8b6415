"""Texts that code reads: spans of tool calls, chat templates, arguments against their schema."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.fuzz.areas.schema import any_schema
from tests.fuzz.mutation import any_json
from tests.fuzz.worker import WrongError

CALLS = (
    '[f(x="1", y=[1, None, {"a": True}])]', '[{"name": "f", "arguments": {"x": "1"}}]',
    "[a.b(c=-1.5e3), g()]", "[f(x='a\\'b\\n', y=(1,2,), z={'k': [[]]})]",
    '{"name": "f", "arguments": "{\\"x\\": 1}"}', 'f(from="x", class=1_000)',
)  # fmt: skip
PIECES = (
    *"()[]{},=:'\"\\f-_é\n ", '"""', "\\x", "\\u12", "\\U00110000", "\\ud83d\\ude00", "x=", "None",
    "true", "1e999", "1" * 5000, "0x1f", "1_", ".5.", "\x00", "<|tool_call_start|>", "NaN",
    "<|tool_call_end|>", "(" * 2000, "[" * 5000, '{"a":' * 3000, "f(x=" * 2000, "Infinity", "🙂",
    "\ud800", "lambda:", "__import__('os').system('x')", "'a' " * 3000, '"\'' * 2000,
)  # fmt: skip
SECRETS = ("<class 'os", "subprocess", "root:", "uid=", "__globals__': {", "built-in")
TEMPLATES = (  # out of the sandbox
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ self.__init__.__globals__ }}",
    "{{ messages.__class__.__base__.__subclasses__() }}", "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['os'] }}", "{{ lipsum.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "{{ ''|attr('__class__') }}",
    "{{ messages|map(attribute='__class__')|list }}", "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{x.__init__.__globals__}'.format_map({'x': cycler}) }}", "{{ messages.append(1) }}",
    "{{ ('{0.__class__}').format|attr('x') }}", "{{ messages|tojson(default=raise_exception) }}",
    "{{ 1|tojson(cls=namespace) }}", "{{ messages|sort(attribute='__class__') }}",
    "{{ messages|groupby('__class__') }}", "{% import 'x' as y %}", "{% include '/etc/passwd' %}",
    "{% extends 'x' %}",
    # faults
    "{{ raise_exception('\x1b[2J\nx') }}", "{{ strftime_now('%' * 1000) }}", "{{ 1/0 }}",
    "{{ strftime_now('\ud800') }}", "{{ raise_exception() }}", "{{ x.y.z }}", "{% break %}",
    "{% for m in messages %}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{{ messages[99].content }}", "{{ undefined() }}", "{{ ''.join(['\ud800']) }}",
    "(" * 2000, "{{" + "(" * 500 + ")" * 500 + "}}", "{{ " + "-" * 3000 + "1 }}",
    "{% if 1 %}" * 500, "{{ " + "[" * 90 + "]" * 90 + " }}", "{{ x" + "|upper" * 2000 + " }}",
    "{{ " + "1+" * 5000 + "1 }}", "{{ " + "not " * 3000 + "1 }}", "{{ a" + ".b" * 5000 + " }}",
    # bombs
    "{{ 'a'*10**10 }}", "{{ [0]*10**9 }}", "{{ 'a'.ljust(10**10) }}", "{{ '%9999999999d' % 3 }}",
    "{{ '{:9999999999}'.format(1) }}", "{% for i in range(10**9) %}{% endfor %}",
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(40) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x|length }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 10**10**8 }}", "{{ 9**9**9 }}", "{{ (2**200000000) % 7 }}", "{{ 'x'|center(10**10) }}",
    "{{ range(99999)|list|join('x'*99999) }}", "{{ ('a'*99999999)|wordwrap(1) }}",
    "{{ lipsum(n=9999999) }}", "{{ 'a'|indent(10**9) }}", "{{ (10**5000)|string }}",
    "{{ ('a' * 10**7 + '<')|striptags }}", "{{ '%999999d' % 3 }}", "{{ 'a'.zfill(10**9) }}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
)  # fmt: skip


def prepare(base: Path) -> None:
    """Nothing is needed."""


def make(draw: random.Random, base: Path, folder: Path) -> str:
    """Write a text and what reads it."""
    kind = draw.choice(["calls", "calls", "calls", "template", "arguments"])
    case: dict[str, Any] = {"kind": kind}
    if kind == "calls":
        text = draw.choice(CALLS)
        for _ in range(draw.choice([1, 2, 3, 6])):
            at = draw.randrange(len(text) + 1)
            end = at + draw.randrange(5)
            text = draw.choice([f"{text[:at]}{draw.choice(PIECES)}{text[at:]}", text[:at],
                                text[:at] + text[end:]])  # fmt: skip
        case["text"] = text
    elif kind == "template":
        case["text"] = _template(draw)
    else:
        case |= {"schema": any_schema(draw), "value": any_json(draw)}
    (folder / "case.json").write_text(json.dumps(case))
    return kind


def _template(draw: random.Random) -> str:
    """Return one of the templates, one in another, or one with a piece missing or doubled."""
    text, other = draw.choice(TEMPLATES), draw.choice(TEMPLATES)
    at = draw.randrange(len(text) + 1)
    end = at + draw.randrange(9)
    return draw.choice([text, text, text + other, f"{text[:at]}{other}{text[at:]}",
                        text[:at] + text[end:], text[:end] + text[at:]])  # fmt: skip


def check(base: Path, folder: Path) -> str:
    """Give it to what reads such texts."""
    case = json.loads((folder / "case.json").read_text())
    if case["kind"] == "calls":
        return _calls(case["text"])
    if case["kind"] == "template":
        return _rendered(case["text"])
    return _arguments(case["schema"], case["value"])


def _calls(text: str) -> str:
    from lfm2gguf.chat.dialect import LFM2
    from lfm2gguf.chat.tool_calls import CallReader, read_calls, write_calls

    found, bad = read_calls(text)
    reader = CallReader()
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    for piece in pieces:
        reader.feed(piece)
    reader.close()
    if found:
        start, end = LFM2.calls
        again, wrong = read_calls(write_calls(found).removeprefix(start).removesuffix(end))
        if wrong or [repr(a) for a in again] != [repr(a) for a in found]:
            raise WrongError("calls that are written are not read as the same")
    return "refused" if bad else "ok"


def _rendered(source: str) -> str:
    from lfm2gguf.chat.template import Template

    template = Template(source, bos="<s>", eos="</s>")
    tools = [{"type": "function", "function": {"name": "f"}}]
    text = template.prompt([{"role": "user", "content": "hello"}], tools)
    if leak := next((secret for secret in SECRETS if secret in text), None):
        raise WrongError(f"a template shows {leak}")
    return "ok"


def _arguments(schema: Any, value: Any) -> str:
    from lfm2gguf.chat.tool_calls import ToolCall
    from lfm2gguf.chat.tools import as_tools

    tool = as_tools([{"type": "function", "function": {"name": "f", "parameters": schema}}])["f"]
    arguments = value if isinstance(value, dict) else {"a": value, "b": 1}
    return "ok" if tool.problem(ToolCall("f", arguments)) is None else "refused"
