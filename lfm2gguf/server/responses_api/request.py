"""What clients send to ``/v1/responses``, and how a conversation is read from it.

Source of the shapes: OpenAI's API reference, "Responses".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from lfm2gguf.options import option_table
from lfm2gguf.server.hosted import OPENAI, refuse_hosted
from lfm2gguf.server.messages import Schema, Sound
from lfm2gguf.server.requests import Sampling
from lfm2gguf.server.wire import Wire

_STRICT = ConfigDict(strict=True)
STORED = "nothing is stored here: send the whole conversation as input"


class Text(Wire):
    """Text, of whoever."""

    model_config = _STRICT

    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text"]
    text: str


class Refused(Wire):
    """An answer in which a model refused."""

    model_config = _STRICT

    type: Literal["refusal"]
    refusal: str


class Image(Wire):
    """An image in the request itself, for a model with a projector."""

    model_config = _STRICT

    type: Literal["input_image"]
    image_url: str = Field(pattern="^data:", description="A data: URL.")
    detail: str | None = Field(None, description="Has no effect.")


class SoundContent(Wire):
    """Sound in the request itself, for a model with a projector."""

    model_config = _STRICT

    type: Literal["input_audio"]
    input_audio: Sound


Content = Annotated[Text | Refused | Image | SoundContent, Field(discriminator="type")]


class Message(Wire):
    """Something said."""

    model_config = _STRICT

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Content]


class CallMade(Wire):
    """A call of an earlier answer."""

    model_config = _STRICT

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str = Field(description="JSON.")


class CallOutput(Wire):
    """What came of a call."""

    model_config = _STRICT

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[Content]


class Reasoning(Wire):
    """What a model thought before an earlier answer; a template drops or keeps it."""

    model_config = _STRICT

    type: Literal["reasoning"]
    summary: list[Text] | None = None
    content: list[Text] | None = None


def _type_of(item: Any) -> str:
    given = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return str(given or "message")


Item = Annotated[
    Annotated[Message, Tag("message")]
    | Annotated[CallMade, Tag("function_call")]
    | Annotated[CallOutput, Tag("function_call_output")]
    | Annotated[Reasoning, Tag("reasoning")],
    Discriminator(
        _type_of,
        custom_error_type="unknown_item",
        custom_error_message="this server knows items of the types message, function_call, "
        "function_call_output and reasoning alone",
    ),
]


class Function(Wire):
    """A function the model may call; tools that a service runs itself are not here."""

    model_config = _STRICT

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = Field(None, description="Has no effect.")

    @model_validator(mode="before")
    @classmethod
    def _is_a_function(cls, given: Any) -> Any:
        refuse_hosted(given, OPENAI)
        return given


class FunctionName(Wire):
    """A function by its name."""

    type: Literal["function"]
    name: str


class AllowedTools(Wire):
    """Those of the tools that may be called now."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[FunctionName]


class TextForm(Wire):
    """The answer is any text."""

    type: Literal["text"]


class ObjectForm(Wire):
    """The answer is a JSON object."""

    type: Literal["json_object"]


class SchemaForm(Wire):
    """The answer is JSON that fits a schema."""

    type: Literal["json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Schema = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class TextOptions(Wire):
    """The form of the answer's text."""

    format: Annotated[TextForm | ObjectForm | SchemaForm, Field(discriminator="type")] | None = None
    verbosity: str | None = Field(None, description="Has no effect: LFM2 has no levels.")


class ResponsesRequest(Sampling):
    """``POST /v1/responses``; what chat takes of sampling besides OpenAI's is taken here too."""

    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1, description=option_table()["max_tokens"].doc)
    tools: list[Function] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionName | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[str] | None = Field(
        None, description="`message.output_text.logprobs` tells them; others are not here."
    )
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="`auto` leaves out the oldest turns where the prompt does not fit."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Variables for the chat template."
    )
    reasoning: dict[str, Any] | None = Field(None, description="`effort` as chat has it.")
    metadata: dict[str, Any] | None = Field(None, description="Comes back as it is.")
    user: str | None = Field(None, description="Comes back as it is.")
    n: Literal[1] | None = Field(None, description="One answer.")
    max_tool_calls: int | None = Field(None, description="Has no effect: clients run the tools.")
    context_management: list[Any] | None = Field(None, description="Has no effect.")
    background: bool | None = Field(None, description=f"Not supported: {STORED}.")
    previous_response_id: str | None = Field(None, description=f"Not supported: {STORED}.")
    conversation: str | dict[str, Any] | None = Field(None, description=f"Not supported: {STORED}.")
    prompt: dict[str, Any] | None = Field(None, description=f"Not supported: {STORED}.")
