"""``POST /v1/completions``: texts continued as they are."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from lfm2gguf.runner import Reply, Runner, Stream, TokenLogprob
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.generation import Event, Generating
from lfm2gguf.server.requests import CompletionRequest, prompts_of
from lfm2gguf.server.responses import (
    Completion,
    TextChoice,
    TextLogprobs,
    finish_reason,
    head,
    timings_of,
    usage_of,
)
from lfm2gguf.server.sampling import options_of
from lfm2gguf.server.service import Served, Service
from lfm2gguf.server.sse import DESCRIBED, event_stream

router = APIRouter()


@router.post(
    "/v1/completions",
    response_model=Completion,
    response_model_exclude_unset=True,
    responses=DESCRIBED,
)
async def completions(body: CompletionRequest, service: Served, generation: Generating) -> Any:
    """Continue a text, or several."""
    common = {"object": "text_completion", **head("cmpl", service.name_of(body.model))}
    prompts = prompts_of(body.prompt)
    _check(body)
    generation.admit(len(prompts) * _tries(body))
    streams = await run_in_threadpool(_streams, service, body, prompts)
    if body.stream:
        events = await generation.events(streams)
        return event_stream(_chunks(service.runner, body, prompts, common, events))
    replies = await generation.replies(streams)
    echoed = _echoed(service.runner, body, prompts)
    choices = [
        _choice(body, service.runner, i, reply, echoed[i // (body.n or 1)])
        for i, reply in enumerate(_likeliest(body, replies))
    ]
    usage, timings = usage_of(len(prompts), replies), timings_of(replies[0].usage)
    return Completion(choices=choices, usage=usage, timings=timings, **common)


def _streams(
    service: Service, body: CompletionRequest, prompts: Sequence[str | list[int]]
) -> list[Stream]:
    """Tokenize the prompts; nothing is computed yet."""
    ranked = _tries(body) > (body.n or 1)
    logprobs = {"logprobs": body.logprobs or 0} if ranked or body.logprobs is not None else {}
    several = body.model_copy(update={"n": _tries(body)})
    asked = [{**options, **logprobs} for options in options_of(service, several)]
    return [
        service.check_prompt(service.runner.stream_complete(prompt, **options))
        for prompt in prompts
        for options in asked
    ]


def _check(body: CompletionRequest) -> None:
    """Refuse what contradicts itself, or what is not there."""
    if _tries(body) < (body.n or 1):
        raise Refusal(400, "best_of is smaller than n: give n or more", param="best_of")
    if body.stream and _tries(body) > (body.n or 1):
        raise Refusal(
            400,
            "the best of several cannot be streamed: leave out best_of or stream",
            param="best_of",
        )
    if body.echo and body.logprobs is not None:
        raise Refusal(
            400,
            "echo with logprobs asks for those of the prompt, which are not computed here: leave "
            "out one of them",
            param="echo",
        )


def _tries(body: CompletionRequest) -> int:
    return body.best_of or body.n or 1


def _likeliest(body: CompletionRequest, replies: Sequence[Reply]) -> list[Reply]:
    """Return the ``n`` best answers to each prompt, the best first, by mean log-probability."""
    tries, kept = _tries(body), body.n or 1
    if tries == kept:
        return list(replies)
    groups = (replies[i : i + tries] for i in range(0, len(replies), tries))
    return [reply for group in groups for reply in sorted(group, key=_mean, reverse=True)[:kept]]


def _mean(reply: Reply) -> float:
    entries = reply.logprobs or ()
    return sum(entry.logprob for entry in entries) / len(entries) if entries else -math.inf


def _echoed(
    runner: Runner, body: CompletionRequest, prompts: Sequence[str | list[int]]
) -> list[str]:
    """Return what stands before the answers to each prompt."""
    if not body.echo:
        return [""] * len(prompts)
    return [
        prompt if isinstance(prompt, str) else _text(b"".join(map(runner.tokens.bytes_of, prompt)))
        for prompt in prompts
    ]


def _choice(
    body: CompletionRequest, runner: Runner, index: int, reply: Reply, before: str
) -> TextChoice:
    entries = None if body.logprobs is None else reply.logprobs
    return TextChoice(
        index=index,
        text=before + reply.text,
        logprobs=None if entries is None else _logprobs(runner, entries, 0),
        finish_reason=finish_reason(reply),
    )


async def _chunks(
    runner: Runner,
    body: CompletionRequest,
    prompts: Sequence[str | list[int]],
    common: dict[str, Any],
    events: AsyncIterator[tuple[int, Event]],
) -> AsyncIterator[Completion]:
    replies: dict[int, Reply] = {}
    echoed = _echoed(runner, body, prompts)
    for index in range(len(prompts) * (body.n or 1) if body.echo else 0):
        text = echoed[index // (body.n or 1)]
        choice = TextChoice(index=index, text=text, logprobs=None, finish_reason=None)
        yield Completion(choices=[choice], **common)
    offsets: dict[int, int] = {}
    tells_usage = bool(body.stream_options and body.stream_options.include_usage)
    usage: dict[str, Any] = {"usage": None} if tells_usage else {}
    async for index, event in events:
        if isinstance(event, Reply):
            replies[index] = event
            reason = finish_reason(event)
            choice = TextChoice(index=index, text="", logprobs=None, finish_reason=reason)
        else:
            offset = offsets.get(index, 0)
            logprobs = _logprobs(runner, event.logprobs, offset) if event.logprobs else None
            offsets[index] = offset + sum(len(_text(entry.text)) for entry in event.logprobs)
            choice = TextChoice(index=index, text=event.text, logprobs=logprobs, finish_reason=None)
        yield Completion(choices=[choice], **common, **usage)
    if tells_usage:
        whole = [replies[index] for index in sorted(replies)]
        yield Completion(choices=[], usage=usage_of(len(prompts), whole), **common)


def _logprobs(runner: Runner, entries: Sequence[TokenLogprob], offset: int) -> TextLogprobs:
    tokens = [_text(entry.text) for entry in entries]
    return TextLogprobs(
        tokens=tokens,
        token_logprobs=[entry.logprob for entry in entries],
        top_logprobs=[
            {_text(runner.token_bytes(token)): logprob for token, logprob in entry.top}
            for entry in entries
        ],
        text_offset=[offset + sum(map(len, tokens[:i])) for i in range(len(tokens))],
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
