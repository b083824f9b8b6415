"""From a request for a response to the same request for a chat completion."""

from __future__ import annotations

from typing import Any

from lfm2gguf.server.conversation import chat_request
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.requests import ChatRequest, Sampling
from lfm2gguf.server.responses_api.request import (
    STORED,
    AllowedTools,
    CallMade,
    CallOutput,
    Content,
    FunctionName,
    Image,
    Item,
    Message,
    ObjectForm,
    Reasoning,
    Refused,
    ResponsesRequest,
    SchemaForm,
    SoundContent,
    Text,
)

_NEEDS_A_STORE = ("previous_response_id", "conversation", "background", "prompt")
_OWN = {"n", "stream", "stream_options"}  # not the conversation's
LOGPROBS = "message.output_text.logprobs"


def as_chat(body: ResponsesRequest) -> ChatRequest:
    """Return a request as one for chat.

    Raises:
        Refusal: it needs what a server would have to store.
        RequestValidationError: chat does not take it.
    """
    for name in _NEEDS_A_STORE:
        if getattr(body, name):
            raise Refusal(400, f"{name}: {STORED}", param=name, code="unsupported_parameter")
    fields = body.model_dump(include=Sampling.model_fields.keys() - _OWN, exclude_none=True)
    fields |= {
        "messages": _messages(body),
        "tools": _tools(body),
        "tool_choice": _choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _form(body),
        "max_completion_tokens": body.max_output_tokens,
        "chat_template_kwargs": body.chat_template_kwargs,
        "reasoning_effort": (body.reasoning or {}).get("effort"),
        "continue_final_message": False,
    }
    if body.top_logprobs is not None or LOGPROBS in (body.include or ()):
        fields |= {"logprobs": True, "top_logprobs": body.top_logprobs}
    return chat_request(fields)


def _messages(body: ResponsesRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for item in body.input:
        _add(messages, item)
    return messages


def _add(messages: list[dict[str, Any]], item: Item) -> None:
    """Add an item; thoughts, text and calls of one turn become one message."""
    match item:
        case Message(role="assistant"):
            _turn(messages, "content")["content"] = _content(item.content)
        case Message():
            messages.append({"role": item.role, "content": _content(item.content)})
        case Reasoning():
            thoughts = "\n".join(part.text for part in item.content or item.summary or ())
            if thoughts:
                _turn(messages, "reasoning_content")["reasoning_content"] = thoughts
        case CallMade():
            call = {"name": item.name, "arguments": item.arguments}
            made = {"id": item.call_id, "type": "function", "function": call}
            _turn(messages).setdefault("tool_calls", []).append(made)
        case CallOutput():
            content = _content(item.output)
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})


_ORDER = ("reasoning_content", "content", "tool_calls")


def _turn(messages: list[dict[str, Any]], adds: str = "tool_calls") -> dict[str, Any]:
    """Return the assistant's last message, or a new one where it has gone beyond what is added."""
    last = messages[-1] if messages else {"role": "none"}
    beyond = _ORDER[_ORDER.index(adds) :] if adds != "tool_calls" else ()
    if last["role"] != "assistant" or any(name in last for name in beyond):
        last = {"role": "assistant"}
        messages.append(last)
    return last


def _content(content: str | list[Content]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Content) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Refused():
            return {"type": "text", "text": part.refusal}
        case Image():
            return {"type": "image_url", "image_url": {"url": part.image_url}}
        case SoundContent():
            return part.model_dump()


def _tools(body: ResponsesRequest) -> list[dict[str, Any]] | None:
    if body.tools is None:
        return None
    functions = [tool.model_dump(exclude={"type"}, exclude_none=True) for tool in body.tools]
    return [{"type": "function", "function": function} for function in functions]


def _choice(body: ResponsesRequest) -> Any:
    match body.tool_choice:
        case FunctionName(name=name):
            return _named(name)
        case AllowedTools(mode=mode, tools=tools):
            allowed = {"mode": mode, "tools": [_named(tool.name) for tool in tools]}
            return {"type": "allowed_tools", "allowed_tools": allowed}
        case plain:
            return plain


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _form(body: ResponsesRequest) -> dict[str, Any] | None:
    match body.text and body.text.format:
        case ObjectForm():
            return {"type": "json_object"}
        case SchemaForm(name=name, schema_=schema):
            return {"type": "json_schema", "json_schema": {"name": name or "", "schema": schema}}
        case _:
            return None
