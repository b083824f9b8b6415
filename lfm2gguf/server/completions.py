"""``POST /v1/completions``: texts continued as they are."""

from __future__ import annotations

import codecs
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from starlette.concurrency import run_in_threadpool

from lfm2gguf.runner import Reply, Runner, Stream, TokenLogprob
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.generation import Event, Generation
from lfm2gguf.server.requests import CompletionRequest, prompts_of
from lfm2gguf.server.responses import (
    Completion,
    TextChoice,
    TextLogprobs,
    finish_reason,
    head,
    timings_of,
    usage_of,
    usage_so_far,
)
from lfm2gguf.server.sampling import options_of
from lfm2gguf.server.service import Service
from lfm2gguf.server.sse import event_stream

router = Endpoints()


@router.post(
    "/v1/completions",
    answer=Completion,
    brief=True,
    streams=True,
)
async def completions(body: CompletionRequest, service: Service, generation: Generation) -> Any:
    """Continue a text, or several."""
    common = {"object": "text_completion", **head("cmpl", service.name_of(body.model))}
    _check(body)
    runner = service.runner
    prompts = await run_in_threadpool(_prompts, runner, body)
    generation.admit(len(prompts) * _tries(body))
    streams = await run_in_threadpool(_streams, service, body, prompts)
    if body.stream:
        events = await generation.events(streams)
        return event_stream(_chunks(runner, body, prompts, streams, common, events))
    replies = await generation.replies(streams)
    choices = [
        _choice(body, runner, i, reply, prompts[i // (body.n or 1)])
        for i, reply in enumerate(_likeliest(body, replies))
    ]
    usage, timings = usage_of(len(prompts), replies), timings_of(replies[0].usage)
    return Completion(choices=choices, usage=usage, timings=timings, **common)


@dataclass(frozen=True)
class _Prompt:
    """What is continued, and what of it stands before its answers: ``echo``.

    ``unsaid`` tokens at the beginning (BOS) are not in what was sent.
    """

    given: str | list[int]
    echo: str = ""
    unsaid: int = 0


def _prompts(runner: Runner, body: CompletionRequest) -> list[_Prompt]:
    """Read the prompts; those whose tokens are to be told of, as tokens."""
    given = prompts_of(body.prompt)
    if not body.echo:
        return [_Prompt(prompt) for prompt in given]
    front = runner.tokens.encode("")  # BOS, where the model wants it
    found = []
    for prompt in given:
        if isinstance(prompt, list):
            text = _text(b"".join(map(runner.tokens.bytes_of, prompt)))
            found.append(_Prompt(prompt, text))
        elif body.logprobs is None:
            found.append(_Prompt(prompt, prompt))
        else:
            ids = runner.tokens.encode(prompt, bos=False)
            unsaid = len(front) if ids[: len(front)] != front else 0
            found.append(_Prompt([*front[:unsaid], *ids], prompt, unsaid))
    return found


def _streams(service: Service, body: CompletionRequest, prompts: Sequence[_Prompt]) -> list[Stream]:
    """Tokenize the prompts; nothing is computed yet."""
    ranked = _tries(body) > (body.n or 1)
    logprobs = {"logprobs": body.logprobs or 0} if ranked or body.logprobs is not None else {}
    if body.echo and body.logprobs is not None:
        logprobs["prompt_logprobs"] = body.logprobs
    several = body.model_copy(update={"n": _tries(body)})
    asked = [{**options, **logprobs} for options in options_of(service, several)]
    return [
        service.check_prompt(service.runner.stream_complete(prompt.given, **options))
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


def _choice(
    body: CompletionRequest, runner: Runner, index: int, reply: Reply, prompt: _Prompt
) -> TextChoice:
    logprobs = None
    if body.logprobs is not None and reply.logprobs is not None:
        scored = reply.prompt_logprobs
        before = [] if scored is None else _of_prompt(runner, prompt, scored)
        logprobs = _Teller(runner).tell([*before, *_of_answer(reply.logprobs)])
    return TextChoice(
        index=index,
        text=prompt.echo + reply.text,
        logprobs=logprobs,
        finish_reason=finish_reason(reply),
    )


async def _chunks(
    runner: Runner,
    body: CompletionRequest,
    prompts: Sequence[_Prompt],
    streams: Sequence[Stream],
    common: dict[str, Any],
    events: AsyncIterator[tuple[int, Event]],
) -> AsyncIterator[Completion]:
    replies: dict[int, Reply] = {}
    tellers = [_Teller(runner) for _ in range(len(prompts) * (body.n or 1))]
    for index in range(len(tellers) if body.echo and body.logprobs is None else 0):
        text = prompts[index // (body.n or 1)].echo
        choice = TextChoice(index=index, text=text, logprobs=None, finish_reason=None)
        yield Completion(choices=[choice], **common)
    async for index, event in events:
        if isinstance(event, Reply):
            replies[index] = event
            reason = finish_reason(event)
            choice = TextChoice(index=index, text="", logprobs=None, finish_reason=reason)
        else:
            text, rows = event.text, _of_answer(event.logprobs)
            if event.prompt_logprobs is not None:
                prompt = prompts[index // (body.n or 1)]
                text, rows = prompt.echo, _of_prompt(runner, prompt, event.prompt_logprobs)
            logprobs = tellers[index].tell(rows) if rows else None
            choice = TextChoice(index=index, text=text, logprobs=logprobs, finish_reason=None)
        usage = usage_so_far(body.stream_options, streams[index])
        yield Completion(choices=[choice], **common, **usage)
    if body.stream_options and body.stream_options.include_usage:
        whole = [replies[index] for index in sorted(replies)]
        yield Completion(choices=[], usage=usage_of(len(prompts), whole), **common)


_Row = tuple[bytes, TokenLogprob | None]  # a token, and what is known of it


def _of_prompt(runner: Runner, prompt: _Prompt, scored: Sequence[TokenLogprob]) -> list[_Row]:
    """Return the tokens of a prompt as it was sent; the first has no log-probability."""
    ids = cast(list[int], prompt.given)[prompt.unsaid :]
    texts = map(runner.tokens.bytes_of, ids)
    return list(zip(texts, [None, *scored[prompt.unsaid :]], strict=False))


def _of_answer(entries: Sequence[TokenLogprob]) -> list[_Row]:
    return [(entry.text, entry) for entry in entries]


class _Teller:
    """Tells of the tokens of one text, each with the place where it begins."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._characters = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def tell(self, rows: Sequence[_Row]) -> TextLogprobs:
        """Return the next tokens as they stand on the wire."""
        entries = [entry for _, entry in rows]
        return TextLogprobs(
            tokens=[_text(data) for data, _ in rows],
            token_logprobs=[None if entry is None else entry.logprob for entry in entries],
            top_logprobs=[None if entry is None else self._top(entry) for entry in entries],
            text_offset=[self._place(data) for data, _ in rows],
        )

    def _place(self, data: bytes) -> int:
        place = self._characters
        self._characters += len(self._decoder.decode(data))
        return place

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        """Return the likeliest tokens and the one that is there, as OpenAI does.

        Of tokens that look the same, parts of characters, the likeliest counts.
        """
        top: dict[str, float] = {}
        for token, logprob in entry.top:
            top.setdefault(_text(self._runner.token_bytes(token)), logprob)
        top.setdefault(_text(entry.text), entry.logprob)
        return top


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
