"""``POST /v1/responses``."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool

from lfm2gguf.server.conversation import open_streams, streams_of
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.generation import Generation
from lfm2gguf.server.parts import steps
from lfm2gguf.server.responses_api.answer import InputTokens, Response
from lfm2gguf.server.responses_api.request import ResponsesRequest
from lfm2gguf.server.responses_api.translation import as_chat
from lfm2gguf.server.responses_api.writer import Writer
from lfm2gguf.server.service import Service
from lfm2gguf.server.sse import named_event_stream

router = Endpoints()


@router.post("/v1/responses", answer=Response, streams=True)
async def responses(body: ResponsesRequest, service: Service, generation: Generation) -> Any:
    """Answer a conversation in OpenAI's newer form."""
    [stream] = await open_streams(as_chat(body), service, generation, overflow=_overflow(body))
    writer = Writer(service, body)
    if body.stream:
        events = writer.events(steps(await generation.events([stream])))
        return named_event_stream(events, writer.failed)
    [reply] = await generation.replies([stream])
    return writer.whole(reply)


@router.post("/v1/responses/input_tokens")
async def input_tokens(body: ResponsesRequest, service: Service) -> InputTokens:
    """Count the tokens of a prompt."""
    service.name_of(body.model)
    [stream] = await run_in_threadpool(streams_of, service, as_chat(body), _overflow(body))
    return InputTokens(input_tokens=stream.prompt_tokens)


def _overflow(body: ResponsesRequest) -> str:
    return "drop" if body.truncation == "auto" else "error"
