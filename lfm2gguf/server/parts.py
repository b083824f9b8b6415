"""What an answer is made of, in the order in which it comes: thinking, text, calls.

Each API of the server spells these parts in its own way, whole or while they come.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from lfm2gguf.runner import Piece, Reply, Runner, TokenLogprob
from lfm2gguf.server.generation import Event
from lfm2gguf.server.responses import FunctionCall, Logprobs, ToolCall, TopLogprob
from lfm2gguf.server.responses import TokenLogprob as WireLogprob

Kind = Literal["thinking", "text", "call"]


@dataclass
class Part:
    """A part of an answer: its text, or a call; ``text`` of a call is its arguments as JSON.

    ``logprobs``, where they were asked for, are a text's: of all tokens of the answer.
    """

    kind: Kind
    text: str = ""
    call: ToolCall | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Step:
    """What happens to the part at ``index``: it starts, grows by ``new``, or is whole.

    ``part`` is the part as it is after the step; ``logprobs`` are what the step adds to it.
    """

    what: Literal["start", "delta", "end"]
    index: int
    part: Part
    new: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


def parts_of(reply: Reply) -> list[Part]:
    """Return the parts of a whole answer; there is one at least, an empty text."""
    thinking = [Part("thinking", reply.thinking)] if reply.thinking else []
    calls = [Part("call", call.function.arguments, call) for call in calls_of(reply)]
    text = reply.text + unreadable(reply)
    said = (
        [Part("text", text, logprobs=reply.logprobs or ())]
        if text or not (thinking or calls)
        else []
    )
    return [*thinking, *said, *calls]


async def steps(events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[Step | Reply]:
    """Return the steps of one answer, and then the whole of it.

    Calls come at the end, as their text may yet turn out not to be one.
    """
    growing = _Growing()
    async for _, event in events:
        if isinstance(event, Reply):
            for step in growing.last(event):
                yield step
            yield event
        else:
            for step in growing.take(event):
                yield step


class _Growing:
    """The parts of an answer that is on its way."""

    def __init__(self) -> None:
        self._index = -1
        self._part: Part | None = None  # the one that grows
        self._thought = False
        self._logprobs: tuple[TokenLogprob, ...] = ()

    def take(self, piece: Piece) -> Iterator[Step]:
        """Return the steps that a piece makes."""
        self._logprobs += piece.logprobs
        if piece.thinking:
            self._thought = True
            yield from self._grow("thinking", piece.thinking)
        begun = self._part is not None and self._part.kind == "text"
        text = piece.text.lstrip() if self._thought and not begun else piece.text
        if text:
            yield from self._grow("text", text)

    def last(self, reply: Reply) -> Iterator[Step]:
        """Return the steps that are left when an answer is whole."""
        calls = calls_of(reply)
        rest = unreadable(reply)
        if rest or not (calls or self._part):
            yield from self._grow("text", rest)
        yield from self._end()
        for call in calls:
            yield from self._begin(Part("call", call=call))
            yield from self._grow("call", call.function.arguments)
            yield from self._end()

    def _grow(self, kind: Kind, new: str) -> Iterator[Step]:
        if self._part is None or self._part.kind != kind:
            yield from self._end()
            yield from self._begin(Part(kind))
        assert self._part is not None
        if new:
            self._part.text += new
            yield Step("delta", self._index, self._part, new, self._hand_out(self._part))

    def _begin(self, part: Part) -> Iterator[Step]:
        self._part = part
        self._index += 1
        yield Step("start", self._index, part)

    def _end(self) -> Iterator[Step]:
        if self._part is not None:
            self._hand_out(self._part)
            yield Step("end", self._index, self._part)
        self._part = None

    def _hand_out(self, part: Part) -> tuple[TokenLogprob, ...]:
        """Give the logprobs at hand to a part, if it is text."""
        if part.kind != "text":
            return ()
        new, self._logprobs = self._logprobs, ()
        part.logprobs += new
        return new


def calls_of(reply: Reply) -> list[ToolCall]:
    """Return every call that could be read; to check the arguments is the client's part."""
    return [
        ToolCall(
            id=f"call_{secrets.token_hex(12)}",
            type="function",
            function=FunctionCall(
                name=call["function"]["name"],
                arguments=json.dumps(call["function"]["arguments"], ensure_ascii=False),
            ),
        )
        for call in reply.message.get("tool_calls", ())
    ]


def unreadable(reply: Reply) -> str:
    """Return calls that could not be read: they are shown as text, rather than lost."""
    return "".join(bad.text for bad in reply.bad_calls if bad.call is None)


def logprobs_of(runner: Runner, entries: tuple[TokenLogprob, ...]) -> Logprobs:
    """Return tokens as they stand on the wire."""
    return Logprobs(
        content=[
            WireLogprob(
                **_token(entry.text, entry.logprob),
                top_logprobs=[
                    TopLogprob(**_token(runner.token_bytes(token), logprob))
                    for token, logprob in entry.top
                ],
            )
            for entry in entries
        ]
    )


def _token(data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": logprob}
