"""``POST /v1/chat/completions``."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from lfm2gguf.runner import Piece, Reply, Runner, Stream, TokenLogprob
from lfm2gguf.server.asking import chat_streams
from lfm2gguf.server.generation import Event, Generating
from lfm2gguf.server.requests import ChatRequest
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
    timings_of,
    usage_of,
)
from lfm2gguf.server.responses import TokenLogprob as WireLogprob
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
    common = head("chatcmpl", service.name_of(body.model))
    generation.admit(body.n or 1)
    streams = await run_in_threadpool(chat_streams, service, body)
    if body.stream:
        chunks = _Chunks(service.runner, body, common, streams)
        return event_stream(chunks.of(await generation.events(streams)))
    replies = await generation.replies(streams)
    choices = [_choice(service.runner, body, i, reply) for i, reply in enumerate(replies)]
    return ChatCompletion(
        object="chat.completion",
        choices=choices,
        usage=usage_of(1, replies),
        timings=timings_of(replies[0].usage),
        **common,
    )


def _choice(runner: Runner, body: ChatRequest, index: int, reply: Reply) -> ChatChoice:
    calls, text = _calls(body, reply), reply.text + _unreadable(reply)
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


def _calls(body: ChatRequest, reply: Reply) -> list[ToolCall]:
    """Return every call that could be read, or the first; their arguments the client checks."""
    calls = reply.message.get("tool_calls", ())
    return [
        ToolCall(
            id=f"call_{secrets.token_hex(12)}",
            type="function",
            function=FunctionCall(
                name=call["function"]["name"],
                arguments=json.dumps(call["function"]["arguments"], ensure_ascii=False),
            ),
        )
        for call in calls[: 1 if body.parallel_tool_calls is False else None]
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

    def __init__(
        self,
        runner: Runner,
        body: ChatRequest,
        common: dict[str, Any],
        streams: Sequence[Stream],
    ) -> None:
        self._runner, self._body, self._common, self._streams = runner, body, common, streams
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
            timings = timings_of(replies[0].usage)
            yield self._envelope([], usage=usage_of(1, replies), timings=timings)

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
        timed = self._body.timings_per_token and self._streams[index].usage
        more = {"timings": timings_of(timed)} if timed else {}
        return self._chunk(index, delta, more, logprobs=logprobs)

    def _last(self, index: int, reply: Reply) -> list[ChatChunk]:
        calls = _calls(self._body, reply)
        for i, call in enumerate(calls):
            call.index = i
        deltas = [AnswerMessage(tool_calls=[call]) for call in calls]
        if rest := _unreadable(reply):
            deltas.append(AnswerMessage(content=rest))
        reason = "tool_calls" if calls else finish_reason(reply)
        return [
            *(self._chunk(index, delta) for delta in deltas),
            self._chunk(
                index,
                AnswerMessage(),
                {"timings": timings_of(reply.usage)},
                finish_reason=reason,
            ),
        ]

    def _chunk(
        self,
        index: int,
        delta: AnswerMessage,
        beside: Mapping[str, Any] = MappingProxyType({}),
        **more: Any,
    ) -> ChatChunk:
        choice = {"logprobs": None, "finish_reason": None, **more}
        return self._envelope([ChatChunkChoice(index=index, delta=delta, **choice)], **beside)

    def _envelope(self, choices: list[ChatChunkChoice], **more: Any) -> ChatChunk:
        if self._tells_usage:
            more = {"usage": None, **more}
        return ChatChunk(object="chat.completion.chunk", choices=choices, **self._common, **more)
