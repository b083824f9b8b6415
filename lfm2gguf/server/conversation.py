"""From a conversation in a request to the runner's streams."""

from __future__ import annotations

from typing import Any

from fastapi.concurrency import run_in_threadpool

from lfm2gguf.chat.dialect import Dialect
from lfm2gguf.runner import Runner, Stream, call_grammar
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.generation import Generation
from lfm2gguf.server.requests import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Schema,
    TextPart,
)
from lfm2gguf.server.sampling import options_of
from lfm2gguf.server.service import Service


async def open_streams(
    body: ChatRequest, service: Service, generation: Generation, overflow: str = "error"
) -> list[Stream]:
    """Check a request, make room for its answers, and return them, not yet computed.

    Raises:
        Refusal: another model is meant, too many answers wait, or the prompt is too long.
    """
    service.check_model(body.model)
    generation.admit(body.n or 1)
    streams = await run_in_threadpool(streams_of, service.runner, body, overflow)
    for stream in streams:
        service.check_prompt(stream)
    return streams


def streams_of(runner: Runner, body: ChatRequest, overflow: str = "error") -> list[Stream]:
    """Render and tokenize the prompt; nothing is computed yet."""
    messages = [_message(message) for message in body.messages]
    tools = _tools(body)
    shared: dict[str, Any] = {"tools": tools, "template": body.chat_template_kwargs}
    shared["overflow"] = overflow
    shared |= _form(body, tools, runner.dialect)
    if body.max_completion_tokens is not None:
        shared["max_tokens"] = body.max_completion_tokens
    if body.logprobs:
        shared["logprobs"] = body.top_logprobs or 0
    return [runner.stream(messages, **{**options, **shared}) for options in options_of(body)]


def _message(message: Message) -> dict[str, Any]:
    plain = message.model_dump(exclude_none=True)
    if plain["role"] == "developer":
        plain["role"] = "system"
    parts = message.content
    if isinstance(parts, list) and all(isinstance(part, TextPart) for part in parts):
        plain["content"] = "".join(part["text"] for part in plain["content"])
    return plain


def _tools(body: ChatRequest) -> list[dict[str, Any]]:
    """Return what the model is told of tools; of those it must not call, nothing."""
    if body.tool_choice == "none":
        return []
    return [
        tool.model_dump(exclude_none=True, exclude={"function": {"strict"}})
        for tool in body.tools or ()
    ]


def _form(body: ChatRequest, tools: list[dict[str, Any]], dialect: Dialect) -> dict[str, Any]:
    """Return the option that binds the answer to calls, to JSON, or to one of them, if any."""
    schema = _answer_schema(body)
    several = body.parallel_tool_calls is not False
    if isinstance(body.tool_choice, NamedTool):
        name = body.tool_choice.function.name
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        several = False
    forced = body.tool_choice == "required" or isinstance(body.tool_choice, NamedTool)
    if forced and not tools:
        raise Refusal(400, "tool_choice asks for a tool that tools lacks", param="tool_choice")
    if forced or (tools and schema is not None):
        otherwise = None if forced else schema
        grammar = call_grammar(tools, several=several, otherwise=otherwise, dialect=dialect)
        return {"grammar": grammar}
    return {} if schema is None else {"json_schema": schema}


def _answer_schema(body: ChatRequest) -> Schema | None:
    match body.response_format:
        case JsonObjectFormat(schema_=schema):
            return schema
        case JsonSchemaFormat(json_schema=named):
            return named.schema_
        case _:
            return None
