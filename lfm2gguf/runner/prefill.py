"""Answers that the caller has begun, and the model goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lfm2gguf.chat.dialect import Dialect
from lfm2gguf.chat.template import REASONING, Message
from lfm2gguf.errors import OptionError


@dataclass(frozen=True)
class Begun:
    """What there is of an answer: its thinking, and its text."""

    thinking: str
    text: str

    @property
    def thinks(self) -> bool | None:
        """Whether it goes on within its thinking, or behind it; None: it has not begun."""
        if self.text:
            return False
        return True if self.thinking else None

    def behind(self, prompt: str, dialect: Dialect) -> str:
        """Return what of it stands behind a prompt for an answer, which may open the thinking."""
        start, end = dialect.thinking
        opened = prompt.rstrip().endswith(start)
        if not self.thinking:
            return f"{end}{self.text}" if opened and self.text else self.text
        thought = self.thinking if opened else start + self.thinking
        return f"{thought}{end}{self.text}" if self.text else thought


def begun_answer(messages: Sequence[Message]) -> Begun | None:
    """Return the answer that the last message begins, if it is an assistant's.

    Raises:
        OptionError: it holds calls, or parts that are not text.
    """
    last = messages[-1]
    if last["role"] != "assistant" or len(messages) == 1:
        return None
    content = last.get("content") or ""
    if last.get("tool_calls") or not isinstance(content, str):
        raise OptionError(
            "the last message is an assistant's, and to be continued: it must be a text without "
            "tool_calls; answer the calls with messages of the role tool"
        )
    thinking = next((last[key] for key in REASONING if last.get(key)), "")
    return Begun(str(thinking), content)
