"""What ``/v1/messages`` answers, whole and as the events of a stream.

Source of the shapes and of the events' order: Anthropic's API reference, "Messages" and
"Streaming messages".
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from lfm2gguf.runner import Reply, Stream
from lfm2gguf.server.errors import ErrorDetail, as_anthropic
from lfm2gguf.server.parts import Part, Step, parts_of
from lfm2gguf.server.wire import Wire

Event = dict[str, Any]
StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]
_REASONS: dict[str, StopReason] = {
    "stop": "end_turn", "length": "max_tokens", "context": "model_context_window_exceeded",
}  # fmt: skip


class TextBlock(Wire):
    """Text of an answer."""

    type: Literal["text"] = "text"
    text: str
    citations: None = None


class ThinkingBlock(Wire):
    """Thinking of an answer; nobody signs it."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str = ""


class ToolUseBlock(Wire):
    """A call."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


Block = TextBlock | ThinkingBlock | ToolUseBlock


class MessageUsage(Wire):
    """What a request has cost; the prompt has all three kinds of input tokens."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int


class Message(Wire):
    """An answer of ``/v1/messages``."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Block] = Field(default=[])
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage


class TokenCount(Wire):
    """An answer of ``/v1/messages/count_tokens``."""

    input_tokens: int


class Writer:
    """Writes the answer to one request."""

    def __init__(self, model: str, stream: Stream) -> None:
        usage = MessageUsage(input_tokens=stream.prompt_tokens, output_tokens=0)
        id = f"msg_{secrets.token_hex(12)}"
        self._message = Message(id=id, model=model, usage=usage)

    def whole(self, reply: Reply) -> Message:
        """Return the message of an answer that is there."""
        parts = parts_of(reply)
        blocks = [_block(part, part.text) for part in parts]
        update = {**_end(reply, parts), "content": blocks, "usage": _usage(reply)}
        return self._message.model_copy(update=update)

    async def events(self, steps: AsyncIterator[Step | Reply]) -> AsyncIterator[Event]:
        """Return the events of an answer on its way."""
        yield {"type": "message_start", "message": self._message.model_dump()}
        parts: list[Part] = []
        async for step in steps:
            if isinstance(step, Reply):
                usage = _usage(step).model_dump()
                yield {"type": "message_delta", "delta": _end(step, parts), "usage": usage}
                yield {"type": "message_stop"}
                return
            if step.what == "end":
                parts.append(step.part)
            for event in _of_step(step):
                yield event

    def failed(self, status: int, error: ErrorDetail) -> list[Event]:
        """Return the event that tells that an answer failed on its way."""
        return [as_anthropic(status, error)]


def _block(part: Part, text: str) -> Block:
    if part.call:
        id = part.call.id.replace("call", "toolu", 1)
        return ToolUseBlock(id=id, name=part.call.function.name, input=json.loads(text or "{}"))
    return TextBlock(text=text) if part.kind == "text" else ThinkingBlock(thinking=text)


def _of_step(step: Step) -> Iterator[Event]:
    where = {"index": step.index}
    if step.what == "start":
        block = _block(step.part, "").model_dump()
        yield {"type": "content_block_start", **where, "content_block": block}
    elif step.what == "delta":
        kind, name = _DELTAS[step.part.kind]
        delta = {"type": kind, name: step.new}
        yield {"type": "content_block_delta", **where, "delta": delta}
    else:
        if step.part.kind == "thinking":
            signed = {"type": "signature_delta", "signature": ""}
            yield {"type": "content_block_delta", **where, "delta": signed}
        yield {"type": "content_block_stop", **where}


_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def _end(reply: Reply, parts: Sequence[Part]) -> dict[str, Any]:
    reason = _REASONS[reply.finish_reason]
    if any(part.call for part in parts):
        reason = "tool_use"
    elif reply.stop is not None:
        reason = "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": reply.stop}


def _usage(reply: Reply) -> MessageUsage:
    usage = reply.usage
    return MessageUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
    )
