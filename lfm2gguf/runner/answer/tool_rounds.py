"""Executing what a model calls, and telling it what came of it."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from lfm2gguf.chat.template import Message
from lfm2gguf.chat.tool_calls import ToolCall
from lfm2gguf.chat.tools import Tool, as_tools
from lfm2gguf.errors import OptionError
from lfm2gguf.runner.answer.stream import Reply


def functions(
    tools: Sequence[Callable[..., Any]], max_rounds: int, *, awaited: bool = False
) -> dict[str, Tool]:
    """Return the tools by name. Raises :class:`OptionError` for what cannot be executed."""
    if max_rounds < 1:
        raise OptionError(f"max_rounds is {max_rounds}: it must be at least 1")
    known = as_tools(tools)
    for tool in known.values():
        if tool.function is None:
            raise OptionError(
                f"run_tools needs functions, and {tool.name} is a schema: use chat, and execute "
                "what it calls yourself"
            )
        if inspect.iscoroutinefunction(tool.function) and not awaited:
            raise OptionError(f"{tool.name} is a coroutine function: use arun_tools")
    return known


def results(tools: dict[str, Tool], reply: Reply) -> list[Message]:
    """Execute the calls of a reply and return what the model shall be told of them."""
    told = [_message(call.name, _execute(tools[call.name], call)) for call in reply.tool_calls]
    return told + _refusals(reply)


async def aresults(tools: dict[str, Tool], reply: Reply) -> list[Message]:
    """Execute the calls of a reply, one after another, and return what to tell of them."""
    told = [
        _message(call.name, await _aexecute(tools[call.name], call)) for call in reply.tool_calls
    ]
    return told + _refusals(reply)


def _execute(tool: Tool, call: ToolCall) -> Any:
    assert tool.function is not None
    try:
        return tool.function(**call.arguments)
    except Exception as error:  # the model shall know, and may try again
        return _failure(error)


async def _aexecute(tool: Tool, call: ToolCall) -> Any:
    if not inspect.iscoroutinefunction(tool.function):
        return await asyncio.to_thread(_execute, tool, call)
    try:
        return await tool.function(**call.arguments)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}"}


def _refusals(reply: Reply) -> list[Message]:
    return [_message("", {"error": bad.reason}) for bad in reply.bad_calls]


def _message(name: str, value: Any) -> Message:
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return {"role": "tool", "name": name, "content": value}
