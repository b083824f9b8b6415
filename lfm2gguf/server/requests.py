"""What clients send, as OpenAI's API reference has it; parameters nobody knows are refused.

Other names, and settings that have no field here: :mod:`lfm2gguf.server.settings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lfm2gguf.options import option_table
from lfm2gguf.server.hosted import OPENAI, Tools
from lfm2gguf.server.messages import (
    AllowedTools,
    Function,
    FunctionName,
    Message,
    NamedTool,
    Schema,
    Tool,
)
from lfm2gguf.server.settings import NO_EFFECT, contradiction, settled
from lfm2gguf.server.wire import Wire

Finite = Annotated[float, Field(allow_inf_nan=False)]
Bias = Finite | Literal[False]
BiasPair = Annotated[list[int | str | Bias], Field(min_length=2, max_length=2)]
Stop = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
MAX_ANSWERS = 64


def option_field(name: str, default: Any = None, least: float | None = None) -> Any:
    """Return the field of a generation option, with the option's range and description."""
    option = option_table()[name]
    low, high = option.range or (None, None)
    return Field(default, ge=low if least is None else least, le=high, description=option.doc)


def _describe(schema: dict[str, Any]) -> None:
    """Let a schema name what is accepted without effect, too."""
    properties = schema.setdefault("properties", {})
    for name in sorted(NO_EFFECT):
        properties.setdefault(name, {"description": "Has no effect."})


class Request(Wire):
    """What all requests have in common."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_describe)

    own_tools: ClassVar[Tools] = OPENAI  # the types of tools that clients run

    model: str | None = Field(
        None, description="The served model's name, an adapter's, or any other, or nothing."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _settle(cls, data: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        return settled(cls.__name__, cls.model_fields, data, validate, cls.own_tools)


class StreamOptions(Wire):
    """What a stream tells besides the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = Field(
        None, description="With include_usage, each chunk has the usage so far (vLLM's)."
    )
    include_obfuscation: bool | None = Field(None, description="Has no effect.")


class AppliedAdapter(Wire):
    """An adapter by its place in ``/lora-adapters``, as llama.cpp has it."""

    model_config = ConfigDict(strict=True)

    id: int = Field(ge=0)
    scale: float = option_field("adapter_scale", default=1.0)


class Sampling(Request):
    """How an answer is generated; what is left out is the model's own choice.

    Ranges and descriptions are those of :class:`lfm2gguf.options.Options`; what is not OpenAI's
    (``top_k``, ``min_p``, ``ignore_eos``, ...) has the option's name there.
    """

    n: int | None = Field(None, ge=1, le=MAX_ANSWERS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = option_field("max_tokens", least=1)
    min_tokens: int | None = option_field("min_tokens")
    temperature: float | None = option_field("temperature")
    top_p: float | None = option_field("top_p")
    top_k: int | None = option_field("top_k")
    min_p: float | None = option_field("min_p")
    top_n_sigma: float | None = option_field("top_n_sigma")
    typical_p: float | None = option_field("typical_p")
    xtc_probability: float | None = option_field("xtc_probability")
    xtc_threshold: float | None = option_field("xtc_threshold")
    dynatemp_range: float | None = option_field("dynatemp_range")
    dynatemp_exponent: float | None = option_field("dynatemp_exponent")
    repeat_penalty: float | None = option_field("repeat_penalty")
    repeat_window: int | None = option_field("repeat_window")
    frequency_penalty: float | None = option_field("frequency_penalty")
    presence_penalty: float | None = option_field("presence_penalty")
    ignore_eos: bool | None = option_field("ignore_eos")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = option_field("stop")
    stop_tokens: list[TokenId] | None = option_field("stop_tokens")
    logit_bias: dict[str, Bias] | list[BiasPair] | None = Field(
        None, description="Numbers added to the logits of tokens, by id or text; false forbids."
    )
    grammar: str | None = option_field("grammar")
    json_schema: Schema | None = option_field("json_schema")
    choice: list[str] | None = Field(
        None, min_length=1, description="Texts, one of which is the answer."
    )
    lora: list[AppliedAdapter] | None = Field(None, description="An adapter, and how strongly.")
    timings_per_token: bool | None = Field(
        None, description="Each chunk of a stream has the timings so far."
    )


class NamedSchema(Wire):
    """A JSON schema for the answer."""

    model_config = ConfigDict(strict=True)

    name: str | None = None
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = Field(
        None, description="The answer fits the schema, as far as a grammar can."
    )


class TextFormat(Wire):
    """The answer is any text."""

    type: Literal["text"]


class JsonObjectFormat(Wire):
    """The answer is a JSON object, or what a schema says (llama.cpp's extension)."""

    type: Literal["json_object"]
    schema_: Schema | None = Field(None, alias="schema")


class JsonSchemaFormat(Wire):
    """The answer is JSON that fits a schema: OpenAI's form, or the other one llama.cpp tells of.

    Source of the latter: ``tools/server/README.md`` at 0c1e57098.
    """

    type: Literal["json_schema"]
    json_schema: NamedSchema | None = None
    schema_: Schema | None = Field(None, alias="schema", description="In place of json_schema.")

    @model_validator(mode="after")
    def _has_one_schema(self) -> JsonSchemaFormat:
        if (self.json_schema is None) == (self.schema_ is None):
            raise PydanticCustomError("one_schema", "json_schema, or schema, is what it needs")
        return self


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


ChosenTools = Annotated[NamedTool | AllowedTools, Field(discriminator="type")]


class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = option_field("max_tokens", least=1)
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTools | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    reasoning_effort: str | None = Field(
        None, description="For the chat template; none is enable_thinking=false."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Variables for the chat template."
    )
    enable_thinking: bool | None = Field(
        None, description="As in chat_template_kwargs, which counts where both are given."
    )
    add_generation_prompt: bool | None = Field(
        None, description="Whether the prompt ends with the beginning of an answer."
    )
    continue_final_message: bool | Literal["content", "reasoning_content"] | None = Field(
        None, description="Go on with the last message: so unless false, if it is an assistant's."
    )
    functions: list[Function] | None = Field(
        None, description="tools, as of old: the answer has one function_call at most."
    )
    function_call: Literal["none", "auto"] | FunctionName | None = Field(
        None, description="tool_choice, as of old."
    )

    @property
    def calls_as_of_old(self) -> bool:
        """Whether a call is answered as ``function_call``."""
        return bool(self.functions)

    @model_validator(mode="after")
    def _take_functions_as_tools(self) -> ChatRequest:
        choice, names = self.function_call, [f.name for f in self.functions or ()]
        if isinstance(choice, FunctionName) and choice.name not in names:
            raise contradiction("ChatRequest", "function_call", choice,
                                f"it asks for {choice.name!r}, which functions lacks")  # fmt: skip
        if not self.functions:
            return self
        for old, new in (("functions", "tools"), ("function_call", "tool_choice")):
            if getattr(self, new):
                raise contradiction("ChatRequest", new, getattr(self, new),
                                    f"{old} says it as of old: give one form or the other"
                                    )  # fmt: skip
        self.tools = [Tool(type="function", function=function) for function in self.functions]
        if isinstance(choice, FunctionName):
            self.tool_choice = NamedTool(type="function", function=choice)
        else:
            self.tool_choice = choice
        self.parallel_tool_calls = False
        return self


Prompt = (
    str | Annotated[list[str], Field(min_length=1, max_length=2048)] | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, max_length=2048)]
)  # fmt: skip


def prompts_of(given: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    """Return prompts, however they were given: one or several, as texts or token ids."""
    if isinstance(given, str) or all(isinstance(part, int) for part in given):
        return [given]  # type: ignore[list-item]
    return given  # type: ignore[return-value]


class CompletionRequest(Sampling):
    """``POST /v1/completions``: a text is continued as it is, without a chat template."""

    prompt: Prompt
    max_tokens: int | None = option_field("max_tokens", default=16)
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: int | None = Field(
        None, ge=1, le=MAX_ANSWERS,
        description="So many are computed, and the n likeliest by their mean logprob come.",
    )  # fmt: skip
    echo: bool | None = Field(
        None,
        description="The prompt stands before each answer; with logprobs, so do those of its "
        "tokens, of which the first has none.",
    )


class EmbeddingRequest(Request):
    """``POST /v1/embeddings``."""

    input: Prompt = Field(description="Texts, or token ids of this model's own tokenizer.")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="The model's own, or nothing.")
    input_type: Literal["query", "document"] | None = Field(
        None, description="Which of the model's prefixes is put in front."
    )
