"""What an answer is made of: thinking, text and tool calls, split while it streams."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from lfm2gguf.chat.dialect import LFM2, Dialect
from lfm2gguf.chat.tool_calls import BadCall, CallReader, ToolCall, end_of_call
from lfm2gguf.runner.engine.request import TokenLogprob
from lfm2gguf.runner.engine.text import first_of, held_back

MOST_HELD = 2_000  # characters that wait for an end marker to tell calls from text


@dataclass(frozen=True)
class Piece:
    """A step of a stream: new text, new thinking, or one complete tool call.

    ``logprobs``, where they were asked for, are of the tokens drawn since the piece before;
    ``prompt_logprobs`` come in a piece of their own, before the others.
    """

    text: str = ""
    thinking: str = ""
    call: ToolCall | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None

    def __str__(self) -> str:
        """Return the text, so that ``print(piece, end="")`` shows the answer alone."""
        return self.text


@dataclass
class Answer:
    """Collects an answer from its text, piece by piece.

    ``<think>`` counts only at the very beginning, or where the prompt opened it already
    (``thinks``). Calls count only outside of it, and only of the ``tools`` declared by their
    names (None: of any): without tools all is text, and so is a call of any other name. A call
    that was handed out stays; what cannot be read is in ``bad_calls``.
    """

    thinks: bool | None = None  # None: not yet known
    tools: Collection[str] | None = None
    several: bool = True  # whether more calls than the first count
    text: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    bad_calls: list[BadCall] = field(default_factory=list)
    dialect: Dialect = LFM2
    _rest: str = ""
    _span: CallReader | None = None  # of the calls that are being written
    _start: str = ""  # the marker before them
    _before: int = 0  # calls handed out before them
    _unknown: list[ToolCall] = field(default_factory=list)  # calls of them to no tool
    _last: str = ""  # the text of the span before: some models write it twice

    def feed(self, new: str) -> list[Piece]:
        """Take new text and return the pieces that are certain now."""
        self._rest += new
        pieces: list[Piece] = []
        while (piece := self._step()) is not None:
            pieces += piece
        return pieces

    def finish(self) -> list[Piece]:
        """Return what was held back, and file an unfinished call under ``bad_calls``."""
        if self.thinks is None:
            self.thinks = False
        rest, self._rest = self._rest, ""
        if self._span is not None:
            return self._read(self._span, rest) + self._close(self._span, whole=False)
        return self._think(rest) if self.thinks else self._say(rest)

    def _step(self) -> list[Piece] | None:
        """Consume a bit of the rest; None when more text is needed."""
        if self.thinks is None:
            return self._begin()
        if not self._rest:
            return None
        if self._span is not None:
            return self._in_span(self._span)
        if self.thinks:
            return self._up_to([self.dialect.thinking[1]], self._think, self._stop_thinking)
        echo = [self._last + self.dialect.calls[1]] if self._last else []
        return self._up_to([*self._openings, *echo], self._say, self._at_marker)

    @functools.cached_property
    def _openings(self) -> list[str]:
        """The markers of calls, and how calls begin that have no marker before them."""
        if self.tools is not None and not self.tools:
            return []
        bare = (mark + name + "(" for name in self.tools or () for mark in ("", "["))
        return [*self.dialect.calls, '{"name"', '[{"name"', *bare]

    def _begin(self) -> list[Piece] | None:
        start, think = self._rest.lstrip(), self.dialect.thinking[0]
        if think.startswith(start) and start != think:  # too early to tell; also when empty
            return None
        self.thinks = start.startswith(think)
        if self.thinks:
            self._rest = start[len(think) :]
        return []

    def _up_to(
        self,
        markers: list[str],
        use: Callable[[str], list[Piece]],
        meet: Callable[[str], list[Piece] | None],
    ) -> list[Piece] | None:
        """Use the text before the first of the markers, or meet the one that begins the rest."""
        found = first_of(self._rest, markers)
        if found and found[0] == 0:
            return meet(found[1])
        keep = found[0] if found else len(self._rest) - held_back(self._rest, markers)
        certain, self._rest = self._rest[:keep], self._rest[keep:]
        return use(certain) if certain else None

    def _stop_thinking(self, marker: str) -> list[Piece]:
        self._rest = self._rest[len(marker) :]
        self.thinks = False
        return []

    def _at_marker(self, marker: str) -> list[Piece] | None:
        start, end = self.dialect.calls
        if marker in self._openings and marker not in (start, end):
            return self._bare()
        self._rest = self._rest[len(marker) :]
        if marker == start:  # an echo is dropped, and an end with no calls before says nothing
            self._open(start)
        return []

    def _bare(self) -> list[Piece] | None:
        """Read what looks like calls without a marker before them: an end marker tells."""
        start, end = self.dialect.calls
        found = first_of(self._rest, [start, end])
        if found and found[1] == end:
            body = self._take(found[0], end)
            if body.strip() == self._last:  # an echo
                return []
            span = self._open("")
            return self._read(span, body) + self._close(span, end)
        closed = end_of_call(self._rest)
        behind = self._rest[closed:].lstrip()
        may_end = closed is None or end.startswith(behind)
        if may_end and not found and len(self._rest) < MOST_HELD + len(self._last):
            return None
        return self._say(self._take(found[0] if found else closed or len(self._rest)))

    def _in_span(self, span: CallReader) -> list[Piece] | None:
        end = self.dialect.calls[1]
        if found := first_of(self._rest, [end]):
            return self._read(span, self._take(found[0], end)) + self._close(span, end)
        certain = len(self._rest) - held_back(self._rest, [end])
        return self._read(span, self._take(certain)) or None

    def _take(self, length: int, marker: str = "") -> str:
        """Take a part of the rest, and a marker behind it."""
        part, self._rest = self._rest[:length], self._rest[length + len(marker) :]
        return part

    # the calls of a span

    def _open(self, marker: str) -> CallReader:
        self._span, self._start, self._unknown = CallReader(), marker, []
        self._before = len(self.calls)
        return self._span

    def _read(self, span: CallReader, new: str) -> list[Piece]:
        return self._hand_out(span.feed(new))

    def _close(self, span: CallReader, marker: str = "", *, whole: bool = True) -> list[Piece]:
        items = span.close(whole=whole)
        pieces = self._hand_out([item for item in items if isinstance(item, ToolCall)])
        malformed = [item for item in items if isinstance(item, BadCall)]
        known = len(self.calls) > self._before
        self._span, self._last = None, span.text.strip() if known else ""
        verbatim = self._unknown and not known and not malformed
        written = [self.dialect.style.write(call.name, call.arguments) for call in self._unknown]
        for call, text in zip(self._unknown, written, strict=True):
            self.bad_calls.append(BadCall(text, f"there is no tool {call.name!r}", call))
        self.bad_calls += malformed
        text = f"{self._start}{span.text}{marker}" if verbatim else ", ".join(written)
        return pieces + self._say(text)

    def _hand_out(self, calls: list[ToolCall]) -> list[Piece]:
        known = [call for call in calls if self.tools is None or call.name in self.tools]
        self._unknown += [call for call in calls if call not in known]
        known = known if self.several else known[: 1 - len(self.calls)]
        self.calls += known
        return [Piece(call=call) for call in known]

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
