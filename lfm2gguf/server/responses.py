"""What the server answers, as OpenAI's API reference has it."""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal

from pydantic import Field

from lfm2gguf import runner
from lfm2gguf.server.requests import StreamOptions
from lfm2gguf.server.wire import Wire
from lfm2gguf.version import __version__

FINGERPRINT = f"lfm2gguf-{__version__}"
FinishReason = Literal["stop", "length", "tool_calls", "function_call"]
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "context": "length"}


class CachedTokens(Wire):
    """How much of a prompt was not computed again."""

    cached_tokens: int


class Usage(Wire):
    """What a request has cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Timings(Wire):
    """What an answer took so far, under llama.cpp's names (``tools/server/server-task.cpp``)."""

    cache_n: int = Field(description="Tokens of the prompt that were in memory already.")
    prompt_n: int = Field(description="Tokens of the prompt that were computed.")
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int = Field(description="Tokens of the answer.")
    predicted_ms: float
    predicted_per_second: float


class TopLogprob(Wire):
    """A token and its natural log-probability."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(TopLogprob):
    """A token of the answer, and what else was likely."""

    top_logprobs: list[TopLogprob]


class Logprobs(Wire):
    """The tokens of an answer."""

    content: list[TokenLogprob]


class FunctionCall(Wire):
    """What is called; the arguments are JSON."""

    name: str
    arguments: str


class ToolCall(Wire):
    """A call; in a stream it has an index, and comes whole."""

    index: int = 0
    id: str
    type: Literal["function"]
    function: FunctionCall


class AnswerMessage(Wire):
    """An answer, or in a stream what is new of it."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None  # where functions were given
    refusal: None = None


class ChatChoice(Wire):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


class ChatCompletion(Wire):
    """A whole answer of ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings | None = None


class ChatChunkChoice(Wire):
    """What is new of one of the answers."""

    index: int
    delta: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(Wire):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    timings: Timings | None = None


class TextLogprobs(Wire):
    """The tokens of a completion; offsets are in characters of its text.

    The first token of a prompt that is echoed has no log-probability.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Wire):
    """One of the continuations, or in a stream what is new of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(Wire):
    """A whole answer of ``/v1/completions``, or an event of its stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | None = None
    timings: Timings | None = None


class Embedding(Wire):
    """The vector of a text: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Wire):
    """What embedding has cost."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Wire):
    """An answer of ``/v1/embeddings``."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ModelInfo(Wire):
    """A model of this server; the last three fields are not OpenAI's."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "lfm2gguf"
    context_length: int = Field(description="Tokens of all conversations together.")
    parallel: int = Field(description="Answers that are computed together.")
    device: str


class ModelList(Wire):
    """The models of this server."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class Health(Wire):
    """Whether the server answers."""

    status: Literal["ok"] = "ok"


def head(prefix: str, model: str) -> dict[str, Any]:
    """Return the fields that all parts of one answer have in common."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def finish_reason(reply: runner.Reply) -> FinishReason:
    """Return OpenAI's word for why an answer ended."""
    return _REASONS[reply.finish_reason]


def timings_of(usage: runner.Usage) -> Timings:
    """Return what the first of the answers took."""
    began = usage.waited
    return Timings(
        cache_n=usage.cached_tokens,
        prompt_n=usage.prefilled_tokens,
        prompt_ms=1000 * max(usage.time_to_first_token - began, 0),
        prompt_per_second=usage.prefill_speed,
        predicted_n=usage.completion_tokens,
        predicted_ms=1000 * max(usage.seconds - usage.time_to_first_token, 0),
        predicted_per_second=usage.decode_speed,
    )


def usage_of(prompts: int, replies: list[runner.Reply]) -> Usage:
    """Sum up; each of the ``prompts`` counts once, though it has several answers."""
    return _summed(prompts, [reply.usage for reply in replies])


def usage_so_far(options: StreamOptions | None, stream: runner.Stream) -> dict[str, Any]:
    """Return the field of a chunk that is not the last: null, or what its answer cost until now.

    As vLLM 0.11 has it (``entrypoints/openai/serving_chat.py``).
    """
    if not options or not options.include_usage:
        return {}
    usage = stream.usage if options.continuous_usage_stats else None
    return {"usage": _summed(1, [usage]) if usage else None}


def _summed(prompts: int, usages: list[runner.Usage]) -> Usage:
    read = usages[:: len(usages) // prompts]
    prompt = sum(usage.prompt_tokens for usage in read)
    generated = sum(usage.completion_tokens for usage in usages)
    cached = CachedTokens(cached_tokens=sum(usage.cached_tokens for usage in read))
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=generated,
        total_tokens=prompt + generated,
        prompt_tokens_details=cached,
    )
