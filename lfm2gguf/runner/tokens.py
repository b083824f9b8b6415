"""The tokens of a model, as :attr:`Runner.tokens` offers them."""

from __future__ import annotations

from collections.abc import Sequence

from lfm2gguf.chat.template import Messages
from lfm2gguf.chat.tools import ToolLike
from lfm2gguf.llamacpp import Model
from lfm2gguf.runner.engine.scheduler import Scheduler
from lfm2gguf.runner.prompts import Prompts


class Tokens:
    """Text to tokens and back, by the file's own vocabulary.

    The methods raise :class:`RuntimeFailureError` when the runner is closed.
    """

    def __init__(self, model: Model, prompts: Prompts, scheduler: Scheduler) -> None:
        self._model, self._prompts, self._scheduler = model, prompts, scheduler

    def __len__(self) -> int:
        return self._model.n_vocab

    def encode(self, text: str, *, bos: bool = True, special: bool = True) -> list[int]:
        """Return the token ids of a text.

        ``bos`` puts BOS in front where the file asks for one; ``special`` lets markers such as
        ``<|im_end|>`` become their single token instead of plain text.
        """
        return self._usable.tokenize(text, bos=bos, special=special)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token: part of a character, perhaps.

        Raises:
            OptionError: the vocabulary has no such token.
        """
        model = self._usable
        return model.piece(*model.checked([token]), special=True)

    def text_of(self, token: int) -> str:
        """Return a token as the file's vocabulary spells it.

        Raises:
            OptionError: the vocabulary has no such token.
        """
        model = self._usable
        return model.token_text(*model.checked([token]))

    def of_chat(self, messages: Messages, tools: Sequence[ToolLike] | None = None) -> list[int]:
        """Return the tokens of a conversation's prompt; those below zero stand for media."""
        return self._prompts.of_chat(messages, tools).tokens

    def count(self, messages: Messages, tools: Sequence[ToolLike] | None = None) -> int:
        """Return how many tokens a conversation's prompt has."""
        return len(self.of_chat(messages, tools))

    @property
    def bos(self) -> int:
        """The id of the beginning-of-text token, or -1."""
        return self._model.bos

    @property
    def eos(self) -> int:
        """The id of the end-of-turn token, or -1."""
        return self._model.eos

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids of all tokens that end an answer."""
        return self._usable.end_tokens

    @property
    def _usable(self) -> Model:
        self._scheduler.check_usable()
        return self._model
