"""Executing what a model calls, and telling it what came of it."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from lfm2gguf.chat.template import Message, Messages, as_messages
from lfm2gguf.chat.tool_calls import ToolCall
from lfm2gguf.chat.tools import Tool, as_tools
from lfm2gguf.errors import OptionError
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.runner.answer.stream import Reply

Result = tuple[Reply, list[Message]]


@dataclass(frozen=True)
class Ask:
    """A step: the model answers the conversation so far."""

    history: list[Message]


@dataclass(frozen=True)
class Execute:
    """A step: a function is called."""

    tool: Tool
    call: ToolCall


Steps = Generator[Ask | Execute, Any, Result]


def functions(tools: Sequence[Callable[..., Any]], *, awaited: bool = False) -> dict[str, Tool]:
    """Return the tools by name.

    Raises:
        OptionError: a tool cannot be executed.
    """
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


@numbers_checked
def rounds(messages: Messages, tools: dict[str, Tool], max_rounds: int) -> Steps:
    """Return the steps to an answer without calls, each to be sent its outcome.

    Raises:
        OptionError: ``max_rounds`` is no number, or below 1.
    """
    if max_rounds < 1:
        raise OptionError(f"max_rounds is {max_rounds}: it must be at least 1")
    return _rounds(list(as_messages(messages)), tools, max_rounds)


def _rounds(history: list[Message], tools: dict[str, Tool], max_rounds: int) -> Steps:
    for _ in range(max_rounds):
        reply: Reply = yield Ask(history)
        told = []
        for call in reply.tool_calls:
            value = yield Execute(tools[call.name], call)
            told.append(_message(call.name, value))
        told += [_message("", {"error": bad.reason}) for bad in reply.bad_calls]
        history += [reply.message, *told]
        if not told:
            break
    return reply, history


def run(steps: Steps, ask: Callable[[list[Message]], Reply]) -> Result:
    """Take the steps one after another."""
    outcome: Any = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as end:
            result: Result = end.value
            return result
        outcome = ask(step.history) if isinstance(step, Ask) else _execute(step)


async def arun(steps: Steps, ask: Callable[[list[Message]], Awaitable[Reply]]) -> Result:
    """Take the steps as :func:`run` does; functions that do not wait run in a thread."""
    outcome: Any = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as end:
            result: Result = end.value
            return result
        outcome = await (ask(step.history) if isinstance(step, Ask) else _aexecute(step))


def _execute(step: Execute) -> Any:
    assert step.tool.function is not None
    try:
        return step.tool.function(**step.call.arguments)
    except Exception as error:  # the model is told, and may try again
        return _failure(error)


async def _aexecute(step: Execute) -> Any:
    if not inspect.iscoroutinefunction(step.tool.function):
        return await asyncio.to_thread(_execute, step)
    try:
        return await step.tool.function(**step.call.arguments)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}"}


def _message(name: str, value: Any) -> Message:
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return {"role": "tool", "name": name, "content": value}
