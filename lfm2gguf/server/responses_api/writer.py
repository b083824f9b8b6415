"""The answer to one request for a response, whole and as the events of a stream.

Source of the events and their order: OpenAI's API reference, "Streaming events".
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from lfm2gguf.runner import Reply
from lfm2gguf.server.errors import ErrorDetail
from lfm2gguf.server.parts import Part, Step, logprobs_of, parts_of
from lfm2gguf.server.responses_api.answer import (
    Failure,
    FunctionCallItem,
    InputDetails,
    OutputDetails,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Response,
    ResponseUsage,
    Status,
    Why,
)
from lfm2gguf.server.responses_api.request import ResponsesRequest
from lfm2gguf.server.service import Service

Event = dict[str, Any]


class Writer:
    """Writes the answer to one request."""

    def __init__(self, service: Service, body: ResponsesRequest) -> None:
        self._runner = service.runner
        self._id = secrets.token_hex(12)
        self._response = _asked(service, body, f"resp_{self._id}")
        self._told = 0  # events

    def whole(self, reply: Reply) -> Response:
        """Return the response to an answer that is there."""
        return self._whole(reply, parts_of(reply))

    async def events(self, steps: AsyncIterator[Step | Reply]) -> AsyncIterator[Event]:
        """Return the events of an answer on its way."""
        for state in ("created", "in_progress"):
            yield self._event(f"response.{state}", response=self._response.model_dump())
        parts: list[Part] = []
        async for step in steps:
            if isinstance(step, Reply):
                response = self._whole(step, parts)
                yield self._event(f"response.{response.status}", response=response.model_dump())
                return
            if step.what == "end":
                parts.append(step.part)
            for event in self._of_step(step):
                yield event

    def failed(self, _: int, error: ErrorDetail) -> list[Event]:
        """Return the events that tell that an answer failed on its way."""
        update = {"status": "failed", "error": Failure(message=error.message)}
        response = self._response.model_copy(update=update)
        what = {"code": error.code, "message": error.message, "param": error.param}
        return [
            self._event("error", **what),
            self._event("response.failed", response=response.model_dump()),
        ]

    # --- whole ---

    def _whole(self, reply: Reply, parts: Sequence[Part]) -> Response:
        complete = reply.finish_reason == "stop"
        last: Status = "completed" if complete else "incomplete"
        items = [
            self._item(i, part, last if part is parts[-1] else "completed")
            for i, part in enumerate(parts)
        ]
        update = {
            "status": last,
            "completed_at": int(time.time()) if complete else None,
            "incomplete_details": None if complete else Why(),
            "output": items,
            "usage": self._usage(reply),
        }
        return self._response.model_copy(update=update)

    def _item(self, index: int, part: Part, status: Status) -> OutputItem:
        """Return a part as an item; where it has no text yet, with no content either."""
        if part.call:
            return FunctionCallItem(
                id=self._name(index, part),
                call_id=part.call.id,
                name=part.call.function.name,
                arguments=part.text,
                status=status,
            )
        if part.kind == "thinking":
            thoughts = [] if status == "in_progress" else [ReasoningText(text=part.text)]
            return ReasoningItem(id=self._name(index, part), content=thoughts, status=status)
        said = [] if status == "in_progress" else [self._text(part)]
        return OutputMessage(id=self._name(index, part), status=status, content=said)

    def _text(self, part: Part) -> OutputText:
        logprobs = logprobs_of(self._runner, part.logprobs).content
        return OutputText(text=part.text, logprobs=logprobs)

    def _name(self, index: int, part: Part) -> str:
        prefix = {"thinking": "rs", "text": "msg", "call": "fc"}[part.kind]
        return f"{prefix}_{self._id}{index}"

    def _usage(self, reply: Reply) -> ResponseUsage:
        usage = reply.usage
        thinking = self._runner.tokens.encode(reply.thinking, bos=False) if reply.thinking else []
        return ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputDetails(reasoning_tokens=len(thinking)),
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        )

    # --- a stream ---

    def _of_step(self, step: Step) -> Iterator[Event]:
        part, where = step.part, {"output_index": step.index}
        of_item = {**where, "item_id": self._name(step.index, part)}
        of_part = of_item if part.call else {**of_item, "content_index": 0}
        kind = f"response.{_KINDS[part.kind]}"
        if step.what == "start":
            item = self._item(step.index, part, "in_progress").model_dump()
            yield self._event("response.output_item.added", **where, item=item)
            if content := self._content(part):
                yield self._event("response.content_part.added", **of_part, part=content)
        elif step.what == "delta":
            yield self._event(f"{kind}.delta", **of_part, delta=step.new, **self._logprobs(step))
        else:
            yield self._event(f"{kind}.done", **of_part, **self._done(part))
            if content := self._content(part):
                yield self._event("response.content_part.done", **of_part, part=content)
            item = self._item(step.index, part, "completed").model_dump()
            yield self._event("response.output_item.done", **where, item=item)

    def _content(self, part: Part) -> dict[str, Any] | None:
        match part.kind:
            case "text":
                return self._text(part).model_dump()
            case "thinking":
                return ReasoningText(text=part.text).model_dump()
            case _:
                return None

    def _done(self, part: Part) -> dict[str, Any]:
        if part.call:
            return {"name": part.call.function.name, "arguments": part.text}
        if part.kind == "thinking":
            return {"text": part.text}
        return self._text(part).model_dump(include={"text", "logprobs"})

    def _logprobs(self, step: Step) -> dict[str, Any]:
        if step.part.kind != "text":
            return {}
        return {"logprobs": logprobs_of(self._runner, step.logprobs).model_dump()["content"]}

    def _event(self, type: str, **fields: Any) -> Event:
        self._told += 1
        return {"type": type, "sequence_number": self._told - 1, **fields}


_KINDS = {"thinking": "reasoning_text", "text": "output_text", "call": "function_call_arguments"}


def _asked(service: Service, body: ResponsesRequest, id: str) -> Response:
    """Return a response that has begun: what was asked for, and what stands where nothing was."""
    defaults = service.runner.defaults
    sent = body.model_dump(by_alias=True, exclude_none=True)
    return Response(
        id=id,
        created_at=int(time.time()),
        model=service.name_of(body.model),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        metadata=body.metadata or {},
        parallel_tool_calls=body.parallel_tool_calls is not False,
        reasoning={"effort": None, "summary": None} | sent.get("reasoning", {}),
        temperature=defaults.temperature if body.temperature is None else body.temperature,
        text={"format": {"type": "text"}} | sent.get("text", {}),
        tool_choice=sent.get("tool_choice", "auto"),
        tools=[{"parameters": None, "strict": None, **tool} for tool in sent.get("tools", ())],
        top_logprobs=body.top_logprobs or 0,
        top_p=defaults.top_p if body.top_p is None else body.top_p,
        truncation=body.truncation or "disabled",
        user=body.user,
    )
