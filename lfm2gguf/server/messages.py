"""Conversations and tools as clients send them, and as the runner wants them.

The forms are those of OpenAI's API reference, with what other servers take beside them:
arguments as objects, ``cache_control``, the roles ``developer`` and ``function``. Fields that say
nothing to the model are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from lfm2gguf.server.hosted import OPENAI, refuse_hosted
from lfm2gguf.server.wire import Wire

Schema = dict[str, Any]


class _Strict(Wire):
    model_config = ConfigDict(strict=True)


class TextPart(_Strict):
    """A part of a message: text."""

    type: Literal["text"]
    text: str


class RefusalPart(_Strict):
    """A part of an assistant's message: why it did not answer. It is text to the model."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Strict):
    """An image in the request itself: nothing is fetched, and no file of the server is read."""

    url: str = Field(pattern="^data:", description="A data: URL.")
    detail: str | None = Field(None, description="Has no effect.")


class ImagePart(_Strict):
    """A part of a message: an image, for a model with a projector."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Sound(_Strict):
    """Sound in the request itself."""

    data: str = Field(description="Base64.")
    format: str | None = Field(None, description="Ignored: the format is detected.")


class SoundPart(_Strict):
    """A part of a message: sound, for a model with a projector."""

    type: Literal["input_audio"]
    input_audio: Sound


Part = Annotated[TextPart | RefusalPart | ImagePart | SoundPart, Field(discriminator="type")]


class CalledFunction(_Strict):
    """A call of an earlier answer."""

    name: str
    arguments: str | dict[str, Any] | None = Field(None, description="JSON, or an object.")


class CallMade(_Strict):
    """A call of an earlier answer, with the id that its result refers to."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(_Strict):
    """A message of the conversation; fields that the template has no use for are ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    reasoning_content: str | None = None
    reasoning: Any = Field(None, description="reasoning_content, as vLLM names it, if a text.")
    refusal: str | None = Field(None, description="Stands for content that is missing.")
    name: str | None = None
    tool_calls: list[CallMade] | None = None
    function_call: CalledFunction | None = Field(None, description="tool_calls, as of old.")
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _has_content(self) -> Message:
        if self.role != "assistant" and "content" not in self.model_fields_set:
            raise PydanticCustomError("missing", "content is missing")
        return self


class Function(_Strict):
    """A function the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = Field(None, description="Has no effect: calls are bound to schemas.")


class Tool(_Strict):
    """A tool the model may use."""

    type: Literal["function"]
    function: Function

    @model_validator(mode="before")
    @classmethod
    def _is_a_function(cls, given: Any) -> Any:
        refuse_hosted(given, OPENAI)
        return given


class FunctionName(_Strict):
    """A function by its name."""

    name: str


class NamedTool(_Strict):
    """The tool that must be used."""

    type: Literal["function"]
    function: FunctionName


class Allowed(_Strict):
    """Tools among those declared, of which one may be called, or must."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedTools(_Strict):
    """A choice of the tools: the prompt lists all of them, and calls are bound to these."""

    type: Literal["allowed_tools"]
    allowed_tools: Allowed


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as the runner wants them."""
    return [_plain(message) for message in messages]


def _plain(message: Message) -> dict[str, Any]:
    plain = message.model_dump(exclude_none=True)
    plain["role"] = _ROLES.get(message.role, message.role)
    if (called := plain.pop("function_call", None)) and not message.tool_calls:
        plain["tool_calls"] = [{"type": "function", "function": called}]
    thoughts, refusal = plain.pop("reasoning", None), plain.pop("refusal", "")
    if isinstance(thoughts, str):
        plain.setdefault("reasoning_content", thoughts)
    plain["content"] = refusal if message.content is None else _content(message.content)
    return plain


_ROLES = {"developer": "system", "function": "tool"}


def _content(content: str | list[Part]) -> str | list[dict[str, Any]]:
    """Return a text, or parts where there are media among them.

    Texts next to each other are joined by a line break, and no text to a medium, as llama.cpp
    does (``common/chat.cpp`` at 0c1e57098, ``common_chat_msg::to_json_oaicompat``).
    """
    if isinstance(content, str):
        return content
    joined: list[dict[str, Any]] = []
    for part in content:
        if isinstance(part, ImagePart | SoundPart):
            joined.append(part.model_dump(exclude_none=True))
            continue
        text = part.text if isinstance(part, TextPart) else part.refusal
        if joined and joined[-1]["type"] == "text":
            joined[-1] = {"type": "text", "text": f"{joined[-1]['text']}\n{text}"}
        else:
            joined.append({"type": "text", "text": text})
    if all(part["type"] == "text" for part in joined):
        return joined[0]["text"] if joined else ""
    return joined
