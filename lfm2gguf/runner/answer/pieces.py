"""What an answer is made of: thinking, text and tool calls, split while it streams."""

from __future__ import annotations

from dataclasses import dataclass, field

from lfm2gguf.chat.dialect import LFM2, Dialect
from lfm2gguf.chat.tool_calls import BadCall, ToolCall, read_calls
from lfm2gguf.runner.engine.request import TokenLogprob
from lfm2gguf.runner.engine.text import first_of, held_back


@dataclass(frozen=True)
class Piece:
    """A step of a stream: new text, new thinking, or one complete tool call.

    ``logprobs``, where they were asked for, are of the tokens drawn since the piece before.
    """

    text: str = ""
    thinking: str = ""
    call: ToolCall | None = None
    logprobs: tuple[TokenLogprob, ...] = ()

    def __str__(self) -> str:
        """Return the text, so that ``print(piece, end="")`` shows the answer alone."""
        return self.text


@dataclass
class Answer:
    """Collects an answer from its text, piece by piece.

    ``<think>`` counts only at the very beginning, or where the prompt opened it already
    (``thinks``); call markers count only outside of it. Calls of a span that turns out to be
    malformed move to ``bad_calls``: ``calls`` holds what may be executed.
    """

    thinks: bool | None = None  # None: not yet known
    text: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    bad_calls: list[BadCall] = field(default_factory=list)
    dialect: Dialect = LFM2
    _rest: str = ""
    _span: str | None = None  # the text of an open call span
    _seen: int = 0  # calls of the open span already handed out

    def feed(self, new: str) -> list[Piece]:
        """Take new text and return the pieces that are certain now."""
        self._rest += new
        pieces: list[Piece] = []
        while (piece := self._step()) is not None:
            pieces += piece
        return pieces

    def finish(self) -> list[Piece]:
        """Return what was held back, and file an unfinished span under ``bad_calls``."""
        if self.thinks is None:
            self.thinks = False
        rest, self._rest = self._rest, ""
        if self._span is not None:
            self._reject(self._span + rest, "the answer ends inside of a tool call")
            return []
        return self._think(rest) if self.thinks else self._say(rest)

    def _step(self) -> list[Piece] | None:
        """Consume a bit of the rest; None when more text is needed."""
        if self.thinks is None:
            return self._begin()
        if not self._rest:
            return None
        if self._span is not None:
            return self._in_span()
        marker = self.dialect.thinking[1] if self.thinks else self.dialect.calls[0]
        found = first_of(self._rest, [marker])
        if found:
            before, self._rest = self._rest[: found[0]], self._rest[found[0] + len(marker) :]
            if self.thinks:
                self.thinks = False
                return self._think(before)
            self._span, self._seen = "", 0
            return self._say(before)
        keep = len(self._rest) - held_back(self._rest, [marker])
        certain, self._rest = self._rest[:keep], self._rest[keep:]
        if not certain:
            return None
        return self._think(certain) if self.thinks else self._say(certain)

    def _begin(self) -> list[Piece] | None:
        start, think = self._rest.lstrip(), self.dialect.thinking[0]
        if think.startswith(start) and start != think:  # too early to tell; also when empty
            return None
        self.thinks = start.startswith(think)
        if self.thinks:
            self._rest = start[len(think) :]
        return []

    def _in_span(self) -> list[Piece] | None:
        assert self._span is not None
        end = self.dialect.calls[1]
        found = first_of(self._rest, [end])
        keep = found[0] if found else len(self._rest) - held_back(self._rest, [end])
        new, self._rest = self._rest[:keep], self._rest[keep:]
        self._span += new
        if found:
            self._rest = self._rest[len(end) :]
            return self._close_span(self._span)
        # a call ends with a parenthesis or a brace: only then is it worth parsing again
        return self._new_calls(read_calls(self._span)[0]) if ")" in new or "}" in new else None

    def _close_span(self, span: str) -> list[Piece]:
        self._span = None
        calls, error = read_calls(span)
        if error:
            self._reject(span, str(error))
            return []
        return self._new_calls(calls)

    def _new_calls(self, calls: list[ToolCall]) -> list[Piece]:
        new = calls[self._seen :]
        self._seen += len(new)
        self.calls += new
        return [Piece(call=call) for call in new]

    def _reject(self, span: str, reason: str) -> None:
        del self.calls[len(self.calls) - self._seen :]
        self.bad_calls.append(BadCall(span, reason))

    def _say(self, text: str) -> list[Piece]:
        self.text += text
        return [Piece(text=text)] if text else []

    def _think(self, text: str) -> list[Piece]:
        self.thinking += text
        return [Piece(thinking=text)] if text else []


class Verbatim(Answer):
    """An answer that is all text: what comes of a prompt without a chat template."""

    def feed(self, new: str) -> list[Piece]:
        """Take new text and return it."""
        return self._say(new)

    def finish(self) -> list[Piece]:
        """Return nothing: no text is held back."""
        return []
