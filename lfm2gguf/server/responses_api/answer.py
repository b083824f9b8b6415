"""What ``/v1/responses`` answers, as OpenAI's API reference has it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lfm2gguf.server.responses import TokenLogprob
from lfm2gguf.server.wire import Wire

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputText(Wire):
    """Text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = Field(default=[])
    logprobs: list[TokenLogprob] = Field(default=[])


class ReasoningText(Wire):
    """Thinking of an answer."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class OutputMessage(Wire):
    """An item of the output: text."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Status
    content: list[OutputText]


class ReasoningItem(Wire):
    """An item of the output: what the model thought."""

    type: Literal["reasoning"] = "reasoning"
    id: str
    summary: list[Any] = Field(default=[])
    content: list[ReasoningText]
    status: Status


class FunctionCallItem(Wire):
    """An item of the output: a call; its arguments are JSON."""

    type: Literal["function_call"] = "function_call"
    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


OutputItem = OutputMessage | ReasoningItem | FunctionCallItem


class InputDetails(Wire):
    """How much of a prompt was not computed again."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Wire):
    """How many tokens of an answer were thinking."""

    reasoning_tokens: int


class ResponseUsage(Wire):
    """What a request has cost."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Why(Wire):
    """Why an answer is not complete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Failure(Wire):
    """Why an answer failed."""

    code: Literal["server_error"] = "server_error"
    message: str


class Response(Wire):
    """An answer of ``/v1/responses``, with what it was asked for."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status = "in_progress"
    error: Failure | None = None
    incomplete_details: Why | None = None
    model: str
    output: list[OutputItem] = Field(default=[])
    usage: ResponseUsage | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, Any]
    parallel_tool_calls: bool
    reasoning: dict[str, Any]
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: str
    user: str | None
    background: Literal[False] = False
    previous_response_id: None = None
    store: Literal[False] = False


class InputTokens(Wire):
    """An answer of ``/v1/responses/input_tokens``."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
