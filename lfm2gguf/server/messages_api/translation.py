"""From Anthropic's request to the same request for a chat completion."""

from __future__ import annotations

import json
from typing import Any

from lfm2gguf.server.conversation import chat_request
from lfm2gguf.server.messages_api.request import (
    Blocks,
    CountRequest,
    Document,
    Image,
    InlineImage,
    Message,
    MessagesRequest,
    NamedTool,
    PlainText,
    RedactedThinking,
    SearchResult,
    Text,
    Thinking,
    ToolReference,
    ToolResult,
    ToolUse,
)
from lfm2gguf.server.requests import ChatRequest

_SAME = {
    "model", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed",
    "chat_template_kwargs",
}  # fmt: skip


def as_chat(body: CountRequest) -> ChatRequest:
    """Return a request as one for chat.

    Raises:
        RequestValidationError: chat does not take it.
    """
    fields = body.model_dump(include=_SAME, exclude_none=True)
    if isinstance(body, MessagesRequest) and body.stop_sequences:
        fields["stop"] = body.stop_sequences
    fields["messages"] = _messages(body)
    fields["tools"] = _tools(body)
    fields |= _choice(body)
    if body.thinking and body.thinking.get("type") == "disabled":
        fields["reasoning_effort"] = "none"
    form = body.output_config.format if body.output_config else None
    if form := form or body.output_format:
        named = {"name": "answer", "schema": form.schema_}
        fields["response_format"] = {"type": "json_schema", "json_schema": named}
    return chat_request(fields)


def _messages(body: CountRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.system:
        messages.append({"role": "system", "content": _content(body.system)})
    for message in body.messages:
        messages += _of_message(message)
    return messages


def _of_message(message: Message) -> list[dict[str, Any]]:
    """Return a message as chat has it: results of tools are messages of their own."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    said: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    for block in message.content:
        match block:
            case ToolResult(tool_use_id=id, content=content):
                told = _content(content or "")
                results.append({"role": "tool", "tool_call_id": id, "content": told})
            case ToolUse():
                said.setdefault("tool_calls", []).append(_call(block))
            case Thinking(thinking=thoughts):
                said["reasoning_content"] = said.get("reasoning_content", "") + thoughts
            case RedactedThinking():
                pass
            case Text() | Image() | Document() | SearchResult():
                said.setdefault("content", []).append(_part(block))
    return [*results, {"role": message.role, **said}] if said or not results else results


def _call(block: ToolUse) -> dict[str, Any]:
    arguments = json.dumps(block.input, ensure_ascii=False)
    function = {"name": block.name, "arguments": arguments}
    return {"id": block.id, "type": "function", "function": function}


def _content(content: str | list[Any]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_part(block) for block in content]


def _part(block: Text | Image | Document | SearchResult | ToolReference) -> dict[str, Any]:
    if not isinstance(block, Image):
        return {"type": "text", "text": _text(block)}
    source = block.source
    if isinstance(source, InlineImage):
        url = f"data:{source.media_type};base64,{source.data}"
    else:
        url = source.url
    return {"type": "image_url", "image_url": {"url": url}}


def _text(block: Text | Document | SearchResult | ToolReference) -> str:
    """Return what a block says as one text, its heading first."""
    match block:
        case Text(text=text):
            return text
        case ToolReference(tool_name=name):
            return name
        case SearchResult(title=title, source=source, content=pieces):
            heading: list[str | None] = [title, source]
        case Document(title=title, context=context, source=PlainText(data=text)):
            heading, pieces = [title, context], [Text(type="text", text=text)]
        case Document(title=title, context=context, source=Blocks(content=pieces)):
            heading = [title, context]
    said = pieces if isinstance(pieces, str) else "\n".join(piece.text for piece in pieces)
    return "\n\n".join([*filter(None, heading), said])


def _tools(body: CountRequest) -> list[dict[str, Any]] | None:
    if body.tools is None:
        return None
    functions = [
        {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
        for tool in body.tools
    ]
    return [{"type": "function", "function": function} for function in functions]


_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def _choice(body: CountRequest) -> dict[str, Any]:
    choice = body.tool_choice
    if choice is None:
        return {}
    if isinstance(choice, NamedTool):
        chosen: Any = {"type": "function", "function": {"name": choice.name}}
    else:
        chosen = _CHOICES[choice.type]
    return {"tool_choice": chosen, "parallel_tool_calls": not choice.disable_parallel_tool_use}
