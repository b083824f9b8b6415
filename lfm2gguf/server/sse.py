"""Chunks on the wire: server-sent events, as OpenAI's clients read them."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from pydantic import BaseModel
from starlette.responses import StreamingResponse

from lfm2gguf.server.errors import ErrorBody, ErrorDetail, body_of

logger = logging.getLogger(__name__)


def event_stream(chunks: AsyncIterator[BaseModel], *, done: bool = True) -> StreamingResponse:
    """Return the response that sends chunks as they come, and ``[DONE]`` behind them if so."""
    return _response(_events(chunks, done))


def named_event_stream(
    events: AsyncIterator[dict[str, Any]],
    failed: Callable[[int, ErrorDetail], Iterable[dict[str, Any]]],
) -> StreamingResponse:
    """Return the response that sends events as they come, each under its ``type``.

    ``failed`` gives the events that tell of an error on the way, from the status it would have had.
    """
    return _response(_named(events, failed))


def _response(events: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _event(data: str) -> bytes:
    """Return an event of one line, which JSON is."""
    return f"data: {data}\n\n".encode()


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
    return f"event: {event['type']}\n".encode() + _event(data)


def _told(error: Exception) -> tuple[int, ErrorDetail]:
    """Return what an event must tell of an error, as another status is sent already."""
    status, body = body_of(error)
    if status == 500:
        logger.error("a stream failed", exc_info=error)
    return status, body.error


async def _events(chunks: AsyncIterator[BaseModel], done: bool) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield _event(chunk.model_dump_json(exclude_unset=True))
        if done:
            yield _event("[DONE]")
    except Exception as error:
        yield _event(ErrorBody(error=_told(error)[1]).model_dump_json())
