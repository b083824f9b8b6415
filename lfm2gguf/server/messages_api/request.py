"""What clients send to ``/v1/messages``.

Source of the shapes: Anthropic's API reference, "Messages".
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from lfm2gguf.options import option_table
from lfm2gguf.server.hosted import ANTHROPIC, Tools, refuse_hosted
from lfm2gguf.server.messages import Schema
from lfm2gguf.server.requests import Request, Stop
from lfm2gguf.server.wire import Wire

_STRICT = ConfigDict(strict=True)


class Text(Wire):
    """Text, of whoever."""

    model_config = _STRICT

    type: Literal["text"]
    text: str


class InlineImage(Wire):
    """An image in the request itself."""

    model_config = _STRICT

    type: Literal["base64"]
    media_type: str
    data: str = Field(description="Base64.")


class ImageUrl(Wire):
    """The same as a URL: nothing is fetched, and no file of the server is read."""

    model_config = _STRICT

    type: Literal["url"]
    url: str = Field(pattern="^data:", description="A data: URL.")


class Image(Wire):
    """An image, for a model with a projector."""

    model_config = _STRICT

    type: Literal["image"]
    source: Annotated[InlineImage | ImageUrl, Field(discriminator="type")]


class PlainText(Wire):
    """The text of a document."""

    model_config = _STRICT

    type: Literal["text"]
    data: str


class Blocks(Wire):
    """The text of a document, in pieces."""

    model_config = _STRICT

    type: Literal["content"]
    content: str | list[Text]


class Document(Wire):
    """A document in plain text."""

    model_config = _STRICT

    type: Literal["document"]
    source: Annotated[PlainText | Blocks, Field(discriminator="type")]
    title: str | None = None
    context: str | None = Field(None, description="What there is to know about it.")


class SearchResult(Wire):
    """What a search of the client's found."""

    model_config = _STRICT

    type: Literal["search_result"]
    source: str
    title: str
    content: list[Text]


class Thinking(Wire):
    """What a model thought before an earlier answer; a template drops or keeps it."""

    model_config = _STRICT

    type: Literal["thinking"]
    thinking: str


class RedactedThinking(Wire):
    """The same where it cannot be read: it is passed over."""

    model_config = _STRICT

    type: Literal["redacted_thinking"]


class ToolUse(Wire):
    """A call of an earlier answer."""

    model_config = _STRICT

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolReference(Wire):
    """A tool that a search for tools, the client's own, has found: it is named."""

    model_config = _STRICT

    type: Literal["tool_reference"]
    tool_name: str


Told = Annotated[
    Text | Image | Document | SearchResult | ToolReference, Field(discriminator="type")
]


class ToolResult(Wire):
    """What came of a call."""

    model_config = _STRICT

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[Told] | None = None
    is_error: bool | None = Field(None, description="Has no effect: the content says it.")


Block = Annotated[
    Text | Image | Document | SearchResult | Thinking | RedactedThinking | ToolUse | ToolResult,
    Field(discriminator="type"),
]


class Message(Wire):
    """A message of the conversation."""

    model_config = _STRICT

    role: Literal["system", "user", "assistant"]
    content: str | list[Block]


class Tool(Wire):
    """A tool of the client; tools that a service runs or defines itself are not here."""

    model_config = _STRICT

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: Schema

    @model_validator(mode="before")
    @classmethod
    def _is_the_clients(cls, given: Any) -> Any:
        refuse_hosted(given, ANTHROPIC)
        return given


class Choice(Wire):
    """Whether tools may be called, or must."""

    model_config = _STRICT

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class NamedTool(Wire):
    """The tool that must be called."""

    model_config = _STRICT

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


class JsonForm(Wire):
    """The answer is JSON that fits a schema."""

    model_config = _STRICT

    type: Literal["json_schema"]
    schema_: Schema = Field(alias="schema")


class OutputConfig(Wire):
    """The form of the answer."""

    model_config = _STRICT

    effort: str | None = Field(None, description="Has no effect: LFM2 has no levels.")
    format: JsonForm | None = None


class CountRequest(Request):
    """``POST /v1/messages/count_tokens``; what has no effect on the prompt is passed over."""

    own_tools: ClassVar[Tools] = ANTHROPIC

    messages: list[Message] = Field(min_length=1)
    system: str | list[Text] | None = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[Choice | NamedTool, Field(discriminator="type")] | None = None
    thinking: dict[str, Any] | None = Field(
        None, description="disabled is enable_thinking=false for the template; no budgets."
    )
    output_config: OutputConfig | None = None
    output_format: JsonForm | None = Field(None, description="output_config.format, as of old.")
    context_management: dict[str, Any] | None = Field(None, description="Nothing is cleared.")


class MessagesRequest(CountRequest):
    """``POST /v1/messages``; ``min_p``, ``seed`` and ``repeat_penalty`` are taken here too."""

    max_tokens: int | None = Field(None, ge=1, description=option_table()["max_tokens"].doc)
    stop_sequences: Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, description=option_table()["temperature"].doc)
    top_k: int | None = Field(None, ge=0, description=option_table()["top_k"].doc)
    top_p: float | None = Field(None, ge=0, le=1, description=option_table()["top_p"].doc)
    min_p: float | None = Field(None, ge=0, le=1, description=option_table()["min_p"].doc)
    repeat_penalty: float | None = Field(None, description=option_table()["repeat_penalty"].doc)
    seed: int | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Variables for the chat template."
    )
    inference_geo: str | None = Field(None, description="Has no effect.")
    speed: str | None = Field(None, description="Has no effect.")
    diagnostics: dict[str, Any] | None = Field(None, description="Has no effect.")
