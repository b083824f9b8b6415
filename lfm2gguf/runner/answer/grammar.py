"""Grammars that give an answer its form: tool calls as LFM2 writes them, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lfm2gguf.chat.dialect import LFM2, CallStyle, Dialect
from lfm2gguf.chat.tools import Tool, ToolLike, as_tools
from lfm2gguf.llamacpp import SchemaRules


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
    style = dialect.style
    calls = [_call(rules, f"tool-{i}", tool, style) for i, tool in enumerate(known)]
    answer = [] if otherwise is None else [rules.add("otherwise", otherwise)]
    start, end = dialect.calls
    more = '(", " call)*' if several else ""
    lines = [
        f"root ::= {' | '.join(['calls', *answer])}",
        f"calls ::= {_quoted(start + style.first)} call {more} {_quoted(style.last + end)}",
        f"call ::= {' | '.join(calls)}",
    ]
    return "\n".join([*lines, rules.text])


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
