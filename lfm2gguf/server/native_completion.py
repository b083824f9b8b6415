"""``POST /completion``: a text continued as it is, in llama-server's own form.

Source of its shapes: llama.cpp at 0c1e57098, ``tools/server/server-task.cpp``, ``to_json`` and
``to_json_non_oaicompat``, and ``server-common.cpp``, ``tokenize_input_prompts``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from lfm2gguf.runner import Reply, Stream, TokenLogprob
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.generation import Event, Generation
from lfm2gguf.server.requests import Sampling, TokenId, option_field
from lfm2gguf.server.responses import Timings, timings_of
from lfm2gguf.server.sampling import options_of
from lfm2gguf.server.service import Service
from lfm2gguf.server.sse import event_stream
from lfm2gguf.server.wire import Wire

router = Endpoints()

Mixed = Annotated[list[TokenId | str], Field(min_length=1)]


class PromptObject(Wire):
    """A text; llama-server has its images and sounds beside it, which chats have here."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt_string: str


Prompt = str | Mixed | PromptObject


class NativeCompletionRequest(Sampling):
    """``POST /completion``."""

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=2048)] = Field(
        description="A text, or texts and token ids mixed; or several of these: texts alone are."
    )
    max_tokens: int | None = option_field("max_tokens")
    n_probs: int | None = Field(None, ge=0, le=20, description="Likeliest tokens in each place.")
    return_tokens: bool | None = Field(None, description="The ids, as a stream always has them.")
    response_fields: list[str] | None = Field(
        None, description="Those of the answer that are sent; a/b is the field b of a."
    )


class Likely(Wire):
    """A token and its natural log-probability."""

    id: int
    token: str
    bytes: list[int]
    logprob: float


class Drawn(Likely):
    """A token of the answer, and what else was likely."""

    top_logprobs: list[Likely]


class Part(Wire):
    """What is new of an answer in a stream."""

    index: int
    content: str
    tokens: list[int]
    id_slot: int = -1  # none that a client could ask for again
    stop: bool = False
    tokens_predicted: int
    tokens_evaluated: int
    completion_probabilities: list[Drawn] | None = None
    timings: Timings | None = None


class Answer(Part):
    """A whole answer; the last event of a stream, where it has no content of its own."""

    stop: bool = True
    model: str
    generation_settings: dict[str, Any]
    prompt: str
    has_new_line: bool
    truncated: bool = Field(description="The context was full.")
    stop_type: Literal["eos", "word", "limit"]
    stopping_word: str
    tokens_cached: int = Field(description="Tokens of the prompt that were in memory already.")


@router.post("/completion", answer=Answer | list[Answer], streams=True)
async def completion(
    body: NativeCompletionRequest, service: Service, generation: Generation
) -> Any:
    """Continue a text, or several."""
    prompts = _prompts(body.prompt)
    generation.admit(len(prompts) * (body.n or 1))
    teller = _Teller(service, body)
    streams = await run_in_threadpool(teller.streams, prompts)
    if body.stream:
        return event_stream(teller.events(await generation.events(streams)), done=False)
    replies = await generation.replies(streams)
    answers = [
        teller.answer(i, reply, reply.text, reply.logprobs) for i, reply in enumerate(replies)
    ]
    sent = [_chosen(body.response_fields, answer) for answer in answers]
    return JSONResponse(sent[0] if len(sent) == 1 else sent)


def _prompts(given: Any) -> list[str | list[int | str]]:
    """Return prompts, however they were given.

    Source of the rules: ``tokenize_input_prompts``: a list without a number in it holds several.
    """
    several = isinstance(given, list) and not any(isinstance(part, int) for part in given)
    listed = given if several else [given]
    return [part.prompt_string if isinstance(part, PromptObject) else part for part in listed]


def _chosen(fields: Sequence[str] | None, answer: Answer) -> dict[str, Any]:
    """Return an answer, or the fields that were asked for, each under the name it was asked by."""
    whole = answer.model_dump(exclude_none=True)
    if not fields:
        return whole
    found = {}
    for path in fields:
        value: Any = whole
        for name in path.split("/"):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found[path] = value
    return found


class _Teller:
    """Tells of the answers to one request in llama-server's words."""

    def __init__(self, service: Service, body: NativeCompletionRequest) -> None:
        self._service, self._body = service, body
        self._tokens = service.runner.tokens
        self._prompts: list[str] = []
        self._streams: list[Stream] = []
        self._settings: dict[str, Any] = {}
        self._model = service.name_of(body.model)

    def streams(self, prompts: Sequence[str | list[int | str]]) -> list[Stream]:
        """Tokenize the prompts; nothing is computed yet."""
        body, service = self._body, self._service
        asked = options_of(service, body)
        self._settings = _settings(service, body, asked[0])
        if body.n_probs or body.return_tokens or body.stream:  # which tell of the tokens, too
            asked = [{**options, "logprobs": body.n_probs or 0} for options in asked]
        for prompt in prompts:
            ids = self._encoded(prompt)
            text = b"".join(map(self._tokens.bytes_of, ids)).decode("utf-8", "replace")
            self._prompts += [text] * len(asked)
            self._streams += [
                service.check_prompt(service.runner.stream_complete(ids, **options))
                for options in asked
            ]
        return self._streams

    def _encoded(self, prompt: str | list[int | str]) -> list[int]:
        parts, ids = [prompt] if isinstance(prompt, str) else prompt, list[int]()
        for i, part in enumerate(parts):
            ids += [part] if isinstance(part, int) else self._tokens.encode(part, bos=not i)
        return ids

    async def events(self, events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[Part]:
        """Yield what is new; the last of each answer has no content."""
        predicted = [0] * len(self._streams)
        async for index, event in events:
            if isinstance(event, Reply):
                yield self.answer(index, event, "", ())
                continue
            usage = self._streams[index].usage
            assert usage is not None  # it is begun
            predicted[index] += len(event.logprobs)
            more: dict[str, Any] = self._probabilities(event.logprobs)
            if self._body.timings_per_token:
                more["timings"] = timings_of(usage)
            yield Part(
                index=index,
                content=event.text,
                tokens=[entry.token for entry in event.logprobs],
                id_slot=-1,
                stop=False,
                tokens_predicted=predicted[index],
                tokens_evaluated=usage.prompt_tokens,
                **more,
            )

    def answer(
        self, index: int, reply: Reply, text: str, logprobs: Sequence[TokenLogprob] | None
    ) -> Answer:
        """Return what is told of a whole answer."""
        return Answer(
            index=index,
            content=text,
            tokens=[entry.token for entry in logprobs or ()] if self._body.return_tokens else [],
            id_slot=-1,
            stop=True,
            model=self._model,
            tokens_predicted=reply.usage.completion_tokens,
            tokens_evaluated=reply.usage.prompt_tokens,
            generation_settings={**self._settings, "seed": reply.seed},
            prompt=self._prompts[index],
            has_new_line="\n" in reply.text,
            truncated=reply.finish_reason == "context",
            stop_type=_stop_type(reply),
            stopping_word=reply.stop or "",
            tokens_cached=reply.usage.cached_tokens,
            timings=timings_of(reply.usage),
            **self._probabilities(logprobs or ()),
        )

    def _probabilities(self, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the field of them, where they were asked for."""
        if not self._body.n_probs or not entries:
            return {}
        drawn = [
            Drawn(
                **self._likely(entry.token, entry.logprob),
                top_logprobs=[Likely(**self._likely(*likely)) for likely in entry.top],
            )
            for entry in entries
        ]
        return {"completion_probabilities": drawn}

    def _likely(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._tokens.bytes_of(token)
        text = data.decode("utf-8", "ignore")
        return {"id": token, "token": text, "bytes": list(data), "logprob": logprob}


def _stop_type(reply: Reply) -> Literal["eos", "word", "limit"]:
    if reply.finish_reason != "stop":
        return "limit"
    return "eos" if reply.stop is None else "word"


_NAMES = {"repeat_window": "repeat_last_n", "stops": "stop"}  # llama.cpp's


def _settings(
    service: Service, body: NativeCompletionRequest, options: dict[str, Any]
) -> dict[str, Any]:
    """Return how an answer is generated, under llama.cpp's names."""
    used = {**vars(service.runner.defaults), **options}
    found = {
        _NAMES.get(name, name): value
        for name, value in used.items()
        if value not in (None, ()) and name not in ("logit_bias", "logprobs")
    }
    most = used.get("max_tokens")
    return {
        **found,
        "n_predict": -1 if most is None else most,
        "max_tokens": -1 if most is None else most,
        "n_probs": body.n_probs or 0,
        "stream": bool(body.stream),
        "n_ctx": service.runner.context_size,
    }
