"""Grammars that give an answer its form: tool calls as LFM2 writes them, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lfm2gguf.chat.dialect import LFM2, CallStyle, Dialect
from lfm2gguf.chat.tools import Tool, ToolLike, as_tools
from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import LazyGrammar, SchemaRules, choice_rules


def call_grammar(
    tools: Sequence[ToolLike],
    *,
    several: bool = True,
    otherwise: Mapping[str, Any] | None = None,
    dialect: Dialect = LFM2,
) -> str:
    """Return a grammar (GBNF) of answers that call one of the tools, or ``several``.

    ``otherwise`` is the JSON schema of an answer that may stand in place of the calls. The calls
    are Pythonic, ``[f(x="1")]``, with values as JSON writes them, and hold what the tools'
    schemas name; required arguments first.

    Raises:
        OptionError: no grammar can express a schema.
    """
    rules = SchemaRules()
    known = as_tools(tools).values()
    call = _rule_of_calls(rules, known, dialect.style)
    answer = [] if otherwise is None else [rules.add("otherwise", otherwise)]
    start, end = dialect.calls
    calls = _calls(start, dialect.style, end, several=several)
    return "\n".join(
        [f"root ::= {' | '.join(['calls', *answer])}", f"calls ::= {calls}", call, rules.text]
    )


def text_grammar(texts: Sequence[str]) -> str:
    """Return a grammar (GBNF) of answers that are one of the texts."""
    return "\n".join(f"{name} ::= {rule}" for name, rule in choice_rules(texts, "root").items())


def lazy_calls(
    tools: Mapping[str, Tool],
    dialect: Dialect = LFM2,
    *,
    thinks: bool = False,
    several: bool = True,
) -> LazyGrammar | None:
    """Return the grammar of calls, or of one, that an answer may hold; None without tools.

    Values are spelled as Python or as JSON spells them, as the model likes. A schema that no
    grammar can express binds the call to its arguments' names alone.
    """
    if not tools:
        return None
    rules, (start, end), style = SchemaRules(pythonic=True), dialect.calls, dialect.style
    call = _rule_of_calls(rules, map(_expressible, tools.values()), style)
    lines = [_PYTHONIC.get(line.partition(" ::= ")[0], line) for line in rules.text.splitlines()]
    root = f"root ::= {_calls('', style, end, several=several)}"
    return LazyGrammar(
        "\n".join([root, call, *lines, *_QUOTED]),
        start,
        end,
        dialect.thinking,
        thinks,
        once=not several,
    )


def _expressible(tool: Tool) -> Tool:
    """Return the tool, or one with any values where a grammar cannot express its schema."""
    try:
        SchemaRules().add_properties("tool", tool.parameters)
    except OptionError:
        described = tool.schema.get("function", tool.schema)
        given = tool.parameters.get("properties")
        names = [key for key in given if isinstance(key, str)] if isinstance(given, Mapping) else []
        loose = {"type": "object", "properties": {name: {} for name in names}}
        return Tool(tool.name, {**described, "parameters": loose})
    return tool


# Rules of JSON values that also let them be written as in Python.
_PYTHONIC = {
    "boolean": 'boolean ::= ("true" | "false" | "True" | "False") space',
    "null": 'null ::= ("null" | "None") space',
    "string": "string ::= (double-quoted | single-quoted) space",
}
# Strings without "<|", so without markers, and without control characters.
_QUOTED = (
    r"""double-quoted ::= "\"" (in-double | "<"+ after-double)* "<"* "\"" """,
    r"""in-double ::= [^\x00-\x1F"\\<] | escaped""",
    r"""after-double ::= [^\x00-\x1F"\\<|] | escaped""",
    r"""single-quoted ::= "'" (in-single | "<"+ after-single)* "<"* "'" """,
    r"""in-single ::= [^\x00-\x1F'\\<] | escaped""",
    r"""after-single ::= [^\x00-\x1F'\\<|] | escaped""",
    r"""escaped ::= "\\" (["'\\/bfnrt] | "u" hex hex hex hex)""",
    "hex ::= [0-9a-fA-F]",
)


def _calls(start: str, style: CallStyle, end: str, *, several: bool) -> str:
    """Return what matches one call, or several, between markers."""
    more = '(", " call)*' if several else ""
    return f"{_quoted(start + style.first)} call {more} {_quoted(style.last + end)}"


def _rule_of_calls(rules: SchemaRules, tools: Iterable[Tool], style: CallStyle) -> str:
    calls = [_call(rules, f"tool-{i}", tool, style) for i, tool in enumerate(tools)]
    return f"call ::= {' | '.join(calls)}"


def _call(rules: SchemaRules, name: str, tool: Tool, style: CallStyle) -> str:
    values = rules.add_properties(name, tool.parameters)
    required = [key for key in tool.parameters.get("required", ()) if key in values]
    optional = [key for key in values if key not in required]
    given = {key: f"{_quoted(style.assignment(key))} {rule}" for key, rule in values.items()}
    if required:
        first = ' ", " '.join(given[key] for key in required)
        arguments = " ".join([first, *(f'(", " {given[key]})?' for key in optional)])
    else:  # any of them may come first, in their order
        starts = (
            " ".join([given[key], *(f'(", " {given[later]})?' for later in optional[i + 1 :])])
            for i, key in enumerate(optional)
        )
        arguments = f"({' | '.join(starts)})?" if optional else ""
    return f"{_quoted(style.opening(tool.name))} {arguments} {_quoted(style.closes)}"


def _quoted(text: str) -> str:
    """Return a text as a literal of GBNF, whose escapes are JSON's."""
    return json.dumps(text)
