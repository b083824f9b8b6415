"""``POST /v1/chat/completions``."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from lfm2gguf.chat.dialect import Dialect
from lfm2gguf.runner import Piece, Reply, Runner, Stream, TokenLogprob, call_grammar
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.generation import Event, Generating
from lfm2gguf.server.requests import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Schema,
    TextPart,
)
from lfm2gguf.server.responses import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    FunctionCall,
    Logprobs,
    ToolCall,
    TopLogprob,
    finish_reason,
    head,
    usage_of,
)
from lfm2gguf.server.responses import TokenLogprob as WireLogprob
from lfm2gguf.server.sampling import options_of
from lfm2gguf.server.service import Served
from lfm2gguf.server.sse import DESCRIBED, event_stream

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    response_model_exclude_unset=True,
    responses=DESCRIBED,
)
async def chat_completions(body: ChatRequest, service: Served, generation: Generating) -> Any:
    """Answer a conversation."""
    service.check_model(body.model)
    generation.admit(body.n or 1)
    streams = await run_in_threadpool(_streams, service.runner, body)
    for stream in streams:
        service.check_prompt(stream)
    common = head("chatcmpl", service.name)
    if body.stream:
        chunks = _Chunks(service.runner, body, common)
        return event_stream(chunks.of(await generation.events(streams)))
    replies = await generation.replies(streams)
    choices = [_choice(service.runner, i, reply) for i, reply in enumerate(replies)]
    return ChatCompletion(
        object="chat.completion", choices=choices, usage=usage_of(1, replies), **common
    )


# --- from the request to the runner ---------------------------------------------------------


def _streams(runner: Runner, body: ChatRequest) -> list[Stream]:
    """Render and tokenize the prompt; nothing is computed yet."""
    messages = [_message(message) for message in body.messages]
    tools = _tools(body)
    shared: dict[str, Any] = {"tools": tools, "template": body.chat_template_kwargs}
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
    """Return the tools that the model is shown: none that it must not call."""
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


# --- from the runner to the response --------------------------------------------------------


def _choice(runner: Runner, index: int, reply: Reply) -> ChatChoice:
    calls, text = _calls(reply), reply.text + _unreadable(reply)
    message = AnswerMessage(role="assistant", content=text or (None if calls else ""), refusal=None)
    if reply.thinking:
        message.reasoning_content = reply.thinking
    if calls:
        message.tool_calls = calls
    return ChatChoice(
        index=index,
        message=message,
        logprobs=None if reply.logprobs is None else _logprobs(runner, reply.logprobs),
        finish_reason="tool_calls" if calls else finish_reason(reply),
    )


def _calls(reply: Reply) -> list[ToolCall]:
    """Return every call that could be read; to check the arguments is the client's part."""
    return [
        ToolCall(
            id=f"call_{secrets.token_hex(12)}",
            type="function",
            function=FunctionCall(
                name=call["function"]["name"],
                arguments=json.dumps(call["function"]["arguments"], ensure_ascii=False),
            ),
        )
        for call in reply.message.get("tool_calls", ())
    ]


def _unreadable(reply: Reply) -> str:
    """Return calls that could not be read: they are shown as text, rather than lost."""
    return "".join(bad.text for bad in reply.bad_calls if bad.call is None)


def _logprobs(runner: Runner, entries: tuple[TokenLogprob, ...]) -> Logprobs:
    return Logprobs(
        content=[
            WireLogprob(
                **_token(entry.text, entry.logprob),
                top_logprobs=[
                    TopLogprob(**_token(runner.token_bytes(token), logprob))
                    for token, logprob in entry.top
                ],
            )
            for entry in entries
        ]
    )


def _token(data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": logprob}


class _Chunks:
    """The chunks of one streamed response."""

    def __init__(self, runner: Runner, body: ChatRequest, common: dict[str, Any]) -> None:
        self._runner, self._common = runner, common
        self._answers = body.n or 1
        options = body.stream_options
        self._tells_usage = bool(options and options.include_usage)
        self._thought: set[int] = set()  # answers that have thought, and not yet said a thing

    async def of(self, events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[ChatChunk]:
        """Turn events into chunks."""
        replies: list[Reply] = []
        for index in range(self._answers):
            yield self._chunk(index, AnswerMessage(role="assistant", content=""))
        async for index, event in events:
            if isinstance(event, Reply):
                replies.append(event)
                for chunk in self._last(index, event):
                    yield chunk
            elif piece := self._piece(index, event):
                yield piece
        if self._tells_usage:
            yield self._envelope([], usage=usage_of(1, replies))

    def _piece(self, index: int, piece: Piece) -> ChatChunk | None:
        delta = AnswerMessage()
        if piece.thinking:
            delta.reasoning_content = piece.thinking
            self._thought.add(index)
        text = piece.text.lstrip() if index in self._thought else piece.text
        if text:
            delta.content = text
            self._thought.discard(index)
        logprobs = _logprobs(self._runner, piece.logprobs) if piece.logprobs else None
        if not delta.model_fields_set and not logprobs:
            return None  # a call: it comes at the end, when all of its span is known to be sound
        return self._chunk(index, delta, logprobs=logprobs)

    def _last(self, index: int, reply: Reply) -> list[ChatChunk]:
        calls = _calls(reply)
        for i, call in enumerate(calls):
            call.index = i
        deltas = [AnswerMessage(tool_calls=[call]) for call in calls]
        if rest := _unreadable(reply):
            deltas.append(AnswerMessage(content=rest))
        reason = "tool_calls" if calls else finish_reason(reply)
        return [
            *(self._chunk(index, delta) for delta in deltas),
            self._chunk(index, AnswerMessage(), finish_reason=reason),
        ]

    def _chunk(self, index: int, delta: AnswerMessage, **more: Any) -> ChatChunk:
        choice = {"logprobs": None, "finish_reason": None, **more}
        return self._envelope([ChatChunkChoice(index=index, delta=delta, **choice)])

    def _envelope(self, choices: list[ChatChunkChoice], **more: Any) -> ChatChunk:
        if self._tells_usage:
            more = {"usage": None, **more}
        return ChatChunk(object="chat.completion.chunk", choices=choices, **self._common, **more)
