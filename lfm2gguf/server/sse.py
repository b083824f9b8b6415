"""Chunks on the wire: server-sent events, as OpenAI's clients read them."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel

from lfm2gguf.server.errors import ErrorBody, ErrorDetail, body_of

logger = logging.getLogger(__name__)

# An event as OpenAPI 3.2 describes it, and FastAPI where it knows of the stream by itself.
EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "A chunk as JSON, or `[DONE]`"}},
}
# How the OpenAPI description tells of answers that may be whole or a stream.
DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole answer, or with `stream` its chunks and then `[DONE]`",
        "content": {"text/event-stream": {"itemSchema": EVENT}},
    }
}


def event_stream(chunks: AsyncIterator[BaseModel]) -> EventSourceResponse:
    """Return the response that sends chunks as they come, and ``[DONE]`` behind them."""
    return EventSourceResponse(_events(chunks), headers={"Cache-Control": "no-store"})


def named_event_stream(
    events: AsyncIterator[dict[str, Any]],
    failed: Callable[[int, ErrorDetail], Iterable[dict[str, Any]]],
) -> EventSourceResponse:
    """Return the response that sends events as they come, each under its ``type``.

    ``failed`` gives the events that tell of an error on the way, from the status it would have had.
    """
    return EventSourceResponse(_named(events, failed), headers={"Cache-Control": "no-store"})


async def _named(
    events: AsyncIterator[dict[str, Any]],
    failed: Callable[[int, ErrorDetail], Iterable[dict[str, Any]]],
) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield _named_event(event)
    except Exception as error:
        for event in failed(*_told(error)):
            yield _named_event(event)


def _named_event(event: dict[str, Any]) -> bytes:
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(event=event["type"], data_str=data)


def _told(error: Exception) -> tuple[int, ErrorDetail]:
    """Return what an event must tell of an error, as another status is sent already."""
    status, body = body_of(error)
    if status == 500:
        logger.error("a stream failed", exc_info=error)
    return status, body.error


async def _events(chunks: AsyncIterator[BaseModel]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield format_sse_event(data_str=chunk.model_dump_json(exclude_unset=True))
        yield format_sse_event(data_str="[DONE]")
    except Exception as error:
        yield format_sse_event(data_str=ErrorBody(error=_told(error)[1]).model_dump_json())
