"""Chunks on the wire: server-sent events, as OpenAI's clients read them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel

from lfm2gguf.server.errors import body_of

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


async def _events(chunks: AsyncIterator[BaseModel]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield format_sse_event(data_str=chunk.model_dump_json(exclude_unset=True))
        yield format_sse_event(data_str="[DONE]")
    except Exception as error:  # the status is sent already: an event must report it
        status, body = body_of(error)
        if status == 500:
            logger.exception("a stream failed")
        yield format_sse_event(data_str=body.model_dump_json())
