"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from lfm2gguf.runner import Piece, Reply, Runner, Stream, Usage
from lfm2gguf.server.conversation import open_streams
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.generation import Event, Generation
from lfm2gguf.server.parts import calls_of, logprobs_of, unreadable
from lfm2gguf.server.requests import ChatRequest
from lfm2gguf.server.responses import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    FinishReason,
    ToolCall,
    finish_reason,
    head,
    timings_of,
    usage_of,
    usage_so_far,
)
from lfm2gguf.server.service import Service
from lfm2gguf.server.sse import event_stream

router = Endpoints()


@router.post(
    "/v1/chat/completions",
    answer=ChatCompletion,
    brief=True,
    streams=True,
)
async def chat_completions(body: ChatRequest, service: Service, generation: Generation) -> Any:
    """Answer a conversation."""
    streams = await open_streams(body, service, generation)
    common = head("chatcmpl", service.name_of(body.model))
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
    calls, text = calls_of(reply), reply.text + unreadable(reply)
    message = AnswerMessage(role="assistant", content=text or (None if calls else ""), refusal=None)
    if reply.thinking:
        message.reasoning_content = reply.thinking
    if calls and body.calls_as_of_old:
        message.function_call = calls[0].function  # there is no other: the answer ends behind one
    elif calls:
        message.tool_calls = calls
    return ChatChoice(
        index=index,
        message=message,
        logprobs=None if reply.logprobs is None else logprobs_of(runner, reply.logprobs),
        finish_reason=_reason(body, reply, calls),
    )


def _reason(body: ChatRequest, reply: Reply, calls: list[ToolCall]) -> FinishReason:
    if not calls:
        return finish_reason(reply)
    return "function_call" if body.calls_as_of_old else "tool_calls"


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
        self._times = bool(body.timings_per_token)
        self._answers = body.n or 1
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
        options = self._body.stream_options
        if options and options.include_usage:
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
        logprobs = logprobs_of(self._runner, piece.logprobs) if piece.logprobs else None
        if not delta.model_fields_set and not logprobs:
            return None  # a call: it comes at the end, when all of its span is known to be sound
        timed = self._streams[index].usage if self._times else None
        return self._chunk(index, delta, timed, logprobs=logprobs)

    def _last(self, index: int, reply: Reply) -> list[ChatChunk]:
        calls = calls_of(reply)
        for i, call in enumerate(calls):
            call.index = i
        if self._body.calls_as_of_old:
            deltas = [AnswerMessage(function_call=call.function) for call in calls]
        else:
            deltas = [AnswerMessage(tool_calls=[call]) for call in calls]
        if rest := unreadable(reply):
            deltas.append(AnswerMessage(content=rest))
        reason = _reason(self._body, reply, calls)
        return [
            *(self._chunk(index, delta) for delta in deltas),
            self._chunk(index, AnswerMessage(), reply.usage, finish_reason=reason),
        ]

    def _chunk(
        self, index: int, delta: AnswerMessage, timed: Usage | None = None, **more: Any
    ) -> ChatChunk:
        choice = {"logprobs": None, "finish_reason": None, **more}
        told: dict[str, Any] = {"timings": timings_of(timed)} if timed else {}
        told |= usage_so_far(self._body.stream_options, self._streams[index])
        return self._envelope([ChatChunkChoice(index=index, delta=delta, **choice)], **told)

    def _envelope(self, choices: list[ChatChunkChoice], **more: Any) -> ChatChunk:
        return ChatChunk(object="chat.completion.chunk", choices=choices, **self._common, **more)
