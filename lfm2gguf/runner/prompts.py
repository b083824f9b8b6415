"""From what a caller gives to the tokens that a model reads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lfm2gguf.chat.guard import CUT, Guard, markers_of
from lfm2gguf.chat.template import (
    Message,
    Messages,
    as_messages,
    check_variables,
    drop_oldest_turn,
)
from lfm2gguf.chat.template_set import TemplateSet
from lfm2gguf.chat.tools import ToolLike, as_tools
from lfm2gguf.errors import ContextError, OptionError, UnsupportedError
from lfm2gguf.llamacpp import Floats
from lfm2gguf.runner.engine.prompt_tokens import PromptTokens
from lfm2gguf.runner.engine.scheduler import Scheduler
from lfm2gguf.runner.media import Encoded, take_out
from lfm2gguf.runner.opening import Opened
from lfm2gguf.runner.prefill import begun_answer

_ENDINGS = ("answer", "continue", "open")
ANSWER_ROOM = 512  # tokens kept free for an answer when old turns are dropped


@dataclass(frozen=True)
class Prompt:
    """A prompt: its text, its tokens, and the embeddings of the tokens below zero.

    ``thinks`` says whether it ends within thinking, behind it, or (None) before the answer.
    """

    text: str
    tokens: list[int]
    rows: Mapping[int, Floats] = field(default_factory=dict)
    thinks: bool | None = None


class Prompts:
    """Makes prompts of conversations and texts; ``spelled`` remembers how answers were written.

    The methods raise :class:`RuntimeFailureError` when the runner is closed.
    """

    def __init__(self, opened: Opened, scheduler: Scheduler, *, parse_markers: bool) -> None:
        self.spelled = PromptTokens(opened.model, opened.dialect)
        self._opened, self._scheduler = opened, scheduler
        self._guard = Guard(set() if parse_markers else markers_of(opened.file), opened.dialect)

    def of_chat(
        self,
        messages: Messages,
        tools: Sequence[ToolLike] | None = None,
        *,
        overflow: str = "error",
        variables: dict[str, Any] | None = None,
        ending: str = "answer",
    ) -> Prompt:
        """Render and tokenize a conversation; ``overflow="drop"`` leaves out the oldest turns.

        ``ending`` is what the model writes next: an ``answer``, the rest of the last message if
        that is an assistant's (``continue``), or whatever it likes behind the last turn (``open``).

        Raises:
            ContextError: the last turn alone does not fit, where the oldest are left out.
            OptionError: the messages, the tools or the variables are not valid.
            UnsupportedError: the file has no chat template.
        """
        if overflow not in ("error", "drop"):
            raise OptionError(f"overflow is {overflow!r}: it must be 'error' or 'drop'")
        if ending not in _ENDINGS:
            raise OptionError(f"ending is {ending!r}: it must be one of {', '.join(_ENDINGS)}")
        schemas = [tool.schema for tool in as_tools(tools).values()]
        plain, media = self._take_media(as_messages(messages))
        check_variables(variables or {})
        templates, guarded = self.templates, self._guard(plain)

        begun = begun_answer(guarded) if ending == "continue" else None
        guarded = guarded[:-1] if begun else guarded

        def render(messages: list[Message]) -> str:
            answers = ending != "open"
            text = templates.prompt_of(
                messages, schemas, add_generation_prompt=answers, **(variables or {})
            )
            return text + begun.behind(text, self._opened.dialect) if begun else text

        if overflow == "drop":
            guarded = self._shortened(guarded, media, render)
        text = render(guarded)
        rows = {token: row for medium in media for token, row in medium.rows.items()}
        thinks = True if text.rstrip().endswith(self._opened.dialect.thinking[0]) else None
        thinks = begun.thinks if begun else thinks
        return Prompt(text, self.spelled.encode(text, media), rows, thinks)

    def of_text(self, text: str | Sequence[int]) -> Prompt:
        """Tokenize a plain text, with BOS in front where it belongs, or check tokens."""
        self._scheduler.check_usable()
        model = self._opened.model
        if not isinstance(text, str):
            return Prompt("", model.checked(text))
        bos = model.token_text(model.bos) if model.adds_bos else ""
        whole = text if text.startswith(bos) else bos + text
        return Prompt(whole, self.spelled.encode(whole))

    @property
    def modalities(self) -> dict[str, bool]:
        """What messages may hold besides text: ``vision``, ``audio``."""
        encoder = self._opened.encoder
        return encoder.modalities if encoder else {"vision": False, "audio": False}

    @property
    def template_sources(self) -> tuple[str, str]:
        """The chat templates for plain conversations and for tools; empty where there is none."""
        found = self._opened.templates
        return (found.plain.source, found.with_tools.source) if found else ("", "")

    @property
    def take_media(self) -> bool:
        """Whether messages may hold images or sound: a projector is open."""
        return self._opened.encoder is not None

    @property
    def templates(self) -> TemplateSet:
        """The file's chat templates.

        Raises:
            UnsupportedError: the file has none.
        """
        if self._opened.templates is None:
            raise UnsupportedError(
                f"{self._opened.model.path}: the file has no chat template; convert a checkpoint "
                "that has one, or use complete() and embed()"
            )
        return self._opened.templates

    def _take_media(self, messages: list[Message]) -> tuple[list[Message], list[Encoded]]:
        """Return the messages with places for their images and sounds, and these encoded."""
        self._scheduler.check_usable()
        plain, media = take_out(messages)
        if not media:
            return plain, []
        encoder = self._opened.encoder
        if encoder is None:
            raise OptionError(
                "images and sound need the model's projector: open the model with mmproj="
                "'mmproj-....gguf', which `lfm2gguf convert --mmproj` makes of its checkpoint"
            )
        return plain, [
            self._scheduler.call(functools.partial(encoder.encode, each)) for each in media
        ]

    def _shortened(
        self, messages: list[Message], media: list[Encoded], render: Callable[[list[Message]], str]
    ) -> list[Message]:
        """Leave out the oldest turns until the prompt leaves room for an answer."""
        n_ctx = self._opened.context.n_ctx
        room = n_ctx - min(ANSWER_ROOM, n_ctx // 4)
        while len(self.spelled.encode(render(messages), media)) > room:
            shorter = drop_oldest_turn(messages)
            if len(shorter) == len(messages):
                raise ContextError(
                    f"the last turn alone does not fit into {n_ctx} tokens of context: shorten "
                    "it, or open the model with a larger context"
                )
            messages = shorter
        return messages


def plain_text(prompt: Prompt) -> str:
    """Return a prompt's text without the marks that keep markers in messages from being read."""
    return prompt.text.replace(CUT, "")
