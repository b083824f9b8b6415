"""What clients send, as OpenAI's API reference has it; parameters nobody knows are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lfm2gguf.options import option_table

Schema = dict[str, Any]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
MAX_ANSWERS = 64


def _option(name: str, default: Any = None) -> Any:
    """Return the field of a generation option, with the option's range and description."""
    option = option_table()[name]
    low, high = option.range or (None, None)
    return Field(default, ge=low, le=high, description=option.doc)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(None, description="The served model's name, or nothing.")
    user: str | None = Field(None, description="Has no effect.")


class _Ignored(BaseModel):
    """Parameters of OpenAI's service around the model: accepted, and without effect."""

    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None


class StreamOptions(BaseModel):
    """What a stream tells besides the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="Has no effect.")


class Sampling(_Request, _Ignored):
    """How an answer is generated; what is left out is the model's own choice.

    Ranges and descriptions are those of :class:`lfm2gguf.options.Options`; what is not OpenAI's
    (``top_k``, ``min_p``, ``ignore_eos``, ...) has the option's name there.
    """

    n: int | None = Field(None, ge=1, le=MAX_ANSWERS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = _option("max_tokens")
    temperature: float | None = _option("temperature")
    top_p: float | None = _option("top_p")
    top_k: int | None = _option("top_k")
    min_p: float | None = _option("min_p")
    repeat_penalty: float | None = _option("repeat_penalty")
    repeat_window: int | None = _option("repeat_window")
    frequency_penalty: float | None = _option("frequency_penalty")
    presence_penalty: float | None = _option("presence_penalty")
    ignore_eos: bool | None = _option("ignore_eos")
    cache_prompt: bool | None = Field(None, description="Has no effect: prompts are cached.")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    reasoning_effort: str | None = Field(None, description="Has no effect: LFM2 has no levels.")
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = _option("stop")
    logit_bias: dict[str, Finite] | None = _option("logit_bias")


class TextPart(BaseModel):
    """A part of a message: text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """An image in the request itself: nothing is fetched, and no file of the server is read."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: str = Field(pattern="^data:", description="A data: URL.")
    detail: str | None = Field(None, description="Has no effect.")


class ImagePart(BaseModel):
    """A part of a message: an image, for a model with a projector."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["image_url"]
    image_url: ImageUrl


class Sound(BaseModel):
    """Sound in the request itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    data: str = Field(description="Base64.")
    format: str | None = Field(None, description="Ignored: the format is detected.")


class SoundPart(BaseModel):
    """A part of a message: sound, for a model with a projector."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["input_audio"]
    input_audio: Sound


Part = Annotated[TextPart | ImagePart | SoundPart, Field(discriminator="type")]


class CalledFunction(BaseModel):
    """A call of an earlier answer."""

    name: str
    arguments: str = Field(description="JSON.")


class CallMade(BaseModel):
    """A call of an earlier answer, with the id that its result refers to."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(BaseModel):
    """A message of the conversation; fields that the template has no use for are ignored."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    reasoning_content: str | None = None
    name: str | None = None
    tool_calls: list[CallMade] | None = None
    tool_call_id: str | None = None


class Function(BaseModel):
    """A function the model may call."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = Field(None, description="Has no effect.")


class Tool(BaseModel):
    """A tool the model may use."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    """A function by its name."""

    name: str


class NamedTool(BaseModel):
    """The tool that must be used."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: FunctionName


class NamedSchema(BaseModel):
    """A JSON schema for the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    description: str | None = None
    schema_: Schema = Field(default_factory=dict, alias="schema")
    strict: bool | None = Field(
        None, description="The answer fits the schema, as far as a grammar can."
    )


class TextFormat(BaseModel):
    """The answer is any text."""

    type: Literal["text"]


class JsonObjectFormat(BaseModel):
    """The answer is a JSON object, or what a schema says (llama.cpp's extension)."""

    type: Literal["json_object"]
    schema_: Schema = Field(default_factory=lambda: {"type": "object"}, alias="schema")


class JsonSchemaFormat(BaseModel):
    """The answer is JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = _option("max_tokens")
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Variables for the chat template."
    )


class CompletionRequest(Sampling):
    """``POST /v1/completions``: a text is continued as it is, without a chat template."""

    prompt: (
        str | Annotated[list[str], Field(min_length=1, max_length=MAX_ANSWERS)] | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_ANSWERS)]
    )  # fmt: skip
    max_tokens: int | None = _option("max_tokens", default=16)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: Literal[False] | None = Field(None, description="Not supported.")
    best_of: Literal[1] | None = Field(None, description="Not supported.")
    suffix: Literal[""] | None = Field(None, description="Not supported.")


class EmbeddingRequest(_Request):
    """``POST /v1/embeddings``."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="The model's own, or nothing.")
    input_type: Literal["query", "document"] | None = Field(
        None, description="Which of the model's prefixes is put in front."
    )
