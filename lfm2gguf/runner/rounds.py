"""Executing what a model calls, and telling it what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.runner.calls import ToolCall
from lfm2gguf.runner.stream import Reply
from lfm2gguf.runner.templates import Message
from lfm2gguf.runner.tools import Tool, as_tools


def functions(tools: Sequence[Callable[..., Any]]) -> dict[str, Tool]:
    """Return the tools by name. Raises :class:`OptionError` for those that are only a schema."""
    known = as_tools(tools)
    if any(tool.function is None for tool in known.values()):
        raise OptionError("run_tools needs functions; for schemas, use chat and execute yourself")
    return known


def results(tools: dict[str, Tool], reply: Reply) -> list[Message]:
    """Execute the calls of a reply and return what the model shall be told of them."""
    told = [_message(call.name, _execute(tools, call)) for call in reply.tool_calls]
    return told + [_message("", {"error": bad.reason}) for bad in reply.bad_calls]


def _execute(tools: dict[str, Tool], call: ToolCall) -> Any:
    function = tools[call.name].function
    assert function is not None
    try:
        return function(**call.arguments)
    except Exception as error:  # the model shall know, and may try again
        return {"error": f"{type(error).__name__}: {error}"}


def _message(name: str, value: Any) -> Message:
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return {"role": "tool", "name": name, "content": value}
