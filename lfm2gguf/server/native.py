"""llama-server's own endpoints: tokens, the prompt, properties, slots.

Source of their shapes: llama.cpp at 0c1e57098, ``tools/server/server-context.cpp``.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from lfm2gguf.server.conversation import prompt_arguments, rendered
from lfm2gguf.server.endpoints import Endpoints
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.messages import plain_messages
from lfm2gguf.server.requests import ChatRequest
from lfm2gguf.server.responses import FINGERPRINT
from lfm2gguf.server.service import Service
from lfm2gguf.server.wire import Wire

router = Endpoints()
counting = Endpoints()


class Tokenize(Wire):
    """``POST /tokenize``."""

    model_config = ConfigDict(strict=True)

    content: str | list[str | int] = Field("", description="A text, or texts and token ids mixed.")
    add_special: bool = Field(False, description="BOS in front, where the model asks for one.")
    parse_special: bool = Field(True, description="Markers become their single token.")
    with_pieces: bool = False


class TokenPiece(Wire):
    """A token and its text, or its bytes where they are no whole characters."""

    id: int
    piece: str | list[int]


class Tokens(Wire):
    """The tokens of a text."""

    tokens: list[int] | list[TokenPiece]


class Detokenize(Wire):
    """``POST /detokenize``."""

    model_config = ConfigDict(strict=True)

    tokens: list[int] = Field(default_factory=list)


class Text(Wire):
    """The text of tokens."""

    content: str


class PromptText(Wire):
    """A conversation as the chat template writes it."""

    prompt: str


class TokenCount(Wire):
    """How long a conversation's prompt is."""

    input_tokens: int


class Modalities(Wire):
    """What messages may hold besides text."""

    vision: bool
    audio: bool


class Properties(Wire):
    """The server and its model, as far as llama-server's names fit."""

    default_generation_settings: dict[str, Any]
    total_slots: int
    model_alias: str
    model_path: str = Field(description="The file's name.")
    modalities: Modalities
    chat_template: str
    chat_template_tool_use: str | None = None
    bos_token: str
    eos_token: str
    build_info: str
    is_sleeping: bool = False


class Slot(Wire):
    """A place for an answer that is computed together with others."""

    id: int
    n_ctx: int = Field(description="Tokens; all places share them.")
    speculative: bool = False
    is_processing: bool


class Adapter(Wire):
    """An adapter; ``lora`` in a request chooses it by its id, ``model`` by its name."""

    id: int
    name: str
    scale: float = 0.0


@router.post("/tokenize")
async def tokenize(body: Tokenize, service: Service) -> Tokens:
    """Turn a text into tokens."""
    vocabulary, found = service.runner.tokens, list[int]()
    for part in [body.content] if isinstance(body.content, str) else body.content:
        if isinstance(part, int):
            vocabulary.bytes_of(part)  # which checks it
            found.append(part)
        else:
            special, bos = body.parse_special, body.add_special and not found
            found += vocabulary.encode(part, bos=bos, special=special)
    if not body.with_pieces:
        return Tokens(tokens=found)
    return Tokens(tokens=[TokenPiece(id=t, piece=_piece(vocabulary.bytes_of(t))) for t in found])


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


@router.post("/detokenize")
async def detokenize(body: Detokenize, service: Service) -> Text:
    """Turn tokens into a text."""
    data = b"".join(map(service.runner.tokens.bytes_of, body.tokens))
    return Text(content=data.decode("utf-8", "replace"))


@router.post("/apply-template")
async def apply_template(body: ChatRequest, service: Service) -> PromptText:
    """Write a conversation's prompt; nothing is computed."""
    return PromptText(prompt=await run_in_threadpool(rendered, service.runner, body))


@counting.post("/v1/chat/completions/input_tokens")
async def input_tokens(body: ChatRequest, service: Service) -> TokenCount:
    """Count the tokens of a conversation's prompt."""

    def count() -> int:
        arguments = prompt_arguments(body)
        variables = arguments.pop("template")
        messages = plain_messages(body.messages)
        return len(
            service.runner.prompts.of_chat(messages, variables=variables, **arguments).tokens
        )

    return TokenCount(input_tokens=await run_in_threadpool(count))


@router.get("/props")
async def props(service: Service) -> Properties:
    """Describe the server and its model."""
    runner, vocabulary = service.runner, service.runner.tokens
    plain, with_tools = runner.prompts.template_sources
    defaults = {
        name: value for name, value in vars(runner.defaults).items() if value not in (None, ())
    }
    return Properties(
        default_generation_settings={"params": defaults, "n_ctx": runner.context_size},
        total_slots=runner.parallel,
        model_alias=service.name,
        model_path=runner.path.name,
        modalities=Modalities(**runner.prompts.modalities),
        chat_template=plain,
        chat_template_tool_use=with_tools if with_tools != plain else None,
        bos_token=vocabulary.text_of(vocabulary.bos) if vocabulary.bos >= 0 else "",
        eos_token=vocabulary.text_of(vocabulary.eos) if vocabulary.eos >= 0 else "",
        build_info=FINGERPRINT,
    )


@router.get("/slots")
async def slots(service: Service, fail_on_no_slot: str = "") -> list[Slot]:
    """Tell which places for answers are taken."""
    runner = service.runner
    taken = runner.load.running
    if fail_on_no_slot and taken >= runner.parallel:
        raise Refusal(503, "all places are taken", code="unavailable")
    return [
        Slot(id=i, n_ctx=runner.context_size, is_processing=i < taken)
        for i in range(runner.parallel)
    ]


@router.get("/lora-adapters")
async def lora_adapters(service: Service) -> list[Adapter]:
    """List the adapters. None applies unless a request chooses it."""
    return [Adapter(id=i, name=name) for i, name in enumerate(service.runner.adapters)]
