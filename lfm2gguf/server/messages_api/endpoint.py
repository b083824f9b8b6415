"""``POST /v1/messages``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from lfm2gguf.server.conversation import open_streams, streams_of
from lfm2gguf.server.generation import Generating
from lfm2gguf.server.messages_api.answer import Message, TokenCount, Writer
from lfm2gguf.server.messages_api.request import CountRequest, MessagesRequest
from lfm2gguf.server.messages_api.translation import as_chat
from lfm2gguf.server.parts import steps
from lfm2gguf.server.service import Served
from lfm2gguf.server.sse import DESCRIBED, named_event_stream

router = APIRouter()


@router.post("/v1/messages", response_model=Message, responses=DESCRIBED)
async def messages(body: MessagesRequest, service: Served, generation: Generating) -> Any:
    """Answer a conversation in Anthropic's form."""
    [stream] = await open_streams(as_chat(body), service, generation)
    writer = Writer(service.name_of(body.model), stream)
    if body.stream:
        events = writer.events(steps(await generation.events([stream])))
        return named_event_stream(events, writer.failed)
    [reply] = await generation.replies([stream])
    return writer.whole(reply)


@router.post("/v1/messages/count_tokens")
async def count_tokens(body: CountRequest, service: Served) -> TokenCount:
    """Count the tokens of a prompt."""
    service.name_of(body.model)
    [stream] = await run_in_threadpool(streams_of, service, as_chat(body))
    return TokenCount(input_tokens=stream.prompt_tokens)
