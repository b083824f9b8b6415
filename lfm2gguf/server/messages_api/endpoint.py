"""``POST /v1/messages``."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool

from lfm2gguf.server.conversation import open_streams, streams_of
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.generation import Generation
from lfm2gguf.server.messages_api.answer import Message, TokenCount, Writer
from lfm2gguf.server.messages_api.request import CountRequest, MessagesRequest
from lfm2gguf.server.messages_api.translation import as_chat
from lfm2gguf.server.parts import steps
from lfm2gguf.server.service import Service
from lfm2gguf.server.sse import named_event_stream

router = Endpoints()


@router.post("/v1/messages", answer=Message, streams=True)
async def messages(body: MessagesRequest, service: Service, generation: Generation) -> Any:
    """Answer a conversation in Anthropic's form."""
    [stream] = await open_streams(as_chat(body), service, generation)
    writer = Writer(service.name_of(body.model), stream)
    if body.stream:
        events = writer.events(steps(await generation.events([stream])))
        return named_event_stream(events, writer.failed)
    [reply] = await generation.replies([stream])
    return writer.whole(reply)


@router.post("/v1/messages/count_tokens")
async def count_tokens(body: CountRequest, service: Service) -> TokenCount:
    """Count the tokens of a prompt."""
    service.name_of(body.model)
    [stream] = await run_in_threadpool(streams_of, service, as_chat(body))
    return TokenCount(input_tokens=stream.prompt_tokens)
