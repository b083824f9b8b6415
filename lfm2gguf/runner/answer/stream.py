"""An answer on its way to the caller, and the whole of it in the end."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from lfm2gguf.chat.tool_calls import BadCall, ToolCall
from lfm2gguf.chat.tools import Tool
from lfm2gguf.errors import OptionError
from lfm2gguf.runner.answer.pieces import Answer, Piece
from lfm2gguf.runner.engine.prompt_tokens import PromptTokens
from lfm2gguf.runner.engine.request import Delta, Event, Finished, Request, TokenLogprob, Usage
from lfm2gguf.runner.engine.scheduler import Scheduler


@dataclass(frozen=True)
class Reply:
    """An answer.

    ``finish_reason`` is ``stop``, ``length`` (max_tokens), ``context`` (the context is full)
    or ``cancelled``. ``tool_calls`` are parsed and fit their schemas; what is not is in
    ``bad_calls``. ``message`` is the answer as the next request's history wants it.
    """

    text: str
    thinking: str
    tool_calls: tuple[ToolCall, ...]
    bad_calls: tuple[BadCall, ...]
    finish_reason: str
    usage: Usage = field(repr=False)
    seed: int
    message: dict[str, Any] = field(repr=False)
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, repr=False)
    prompt_logprobs: tuple[TokenLogprob, ...] | None = field(default=None, repr=False)
    stop: str | None = None  # the stop string that ended it, if one did


class Stream:
    """An answer on its way: iterate over its pieces, then read :attr:`reply`.

    Iterate with ``for``, or ``async for`` where it came from :meth:`Runner.astream`. Leaving the
    loop early, an interrupt, or leaving the ``with`` block cancels the request.
    """

    def __init__(
        self, start: Callable[[Callable[[Event], None]], Conversation], prompt_tokens: int
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self._start = start
        self._conversation: Conversation | None = None
        self._reply: Reply | None = None
        self._events: list[Event] = []
        self._complete = threading.Event()

    @property
    def reply(self) -> Reply:
        """The whole answer; there once the iteration has ended."""
        if self._reply is None:
            raise OptionError("the reply is there once the stream has been read to its end")
        return self._reply

    @property
    def usage(self) -> Usage | None:
        """What the answer has cost until now; None before it is begun."""
        return self._conversation.usage if self._conversation else None

    def cancel(self) -> None:
        """End the answer at the next token, from any thread; its reason is ``cancelled``."""
        if self._conversation:
            self._conversation.cancel()

    def __iter__(self) -> Iterator[Piece]:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        conversation = self._begin(events.put)
        try:
            while self._reply is None:
                yield from self._take(conversation, events.get())
        finally:
            self.close()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        conversation = self._begin(lambda e: _void(loop.call_soon_threadsafe(events.put_nowait, e)))
        try:
            while self._reply is None:
                for piece in self._take(conversation, await events.get()):
                    yield piece
        finally:
            self.close()

    def start(self) -> None:
        """Start generating; the pieces are not available, only :meth:`wait`."""
        self._begin(self._collect)

    def wait(self) -> Reply:
        """Return the whole answer. This thread sleeps until it is there.

        Woken at each token it would compete with the computation for a core.
        """
        if self._conversation is None:
            self.start()
        try:
            self._complete.wait()
            return self._replay()
        finally:
            self.close()

    async def wait_async(self) -> Reply:
        """Return the whole answer, other tasks running meanwhile."""
        loop, complete = asyncio.get_running_loop(), asyncio.Event()

        def emit(event: Event) -> None:
            self._collect(event)
            if self._complete.is_set():
                loop.call_soon_threadsafe(complete.set)

        self._begin(emit)
        try:
            await complete.wait()
            return self._replay()
        finally:
            self.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what has not come to its end."""
        if self._reply is None:
            self.cancel()

    def _begin(self, emit: Callable[[Event], None]) -> Conversation:
        if self._conversation is not None:
            raise OptionError("a stream can be read once")
        self._conversation = self._start(emit)
        return self._conversation

    def _take(self, conversation: Conversation, event: Event) -> list[Piece]:
        pieces, self._reply = conversation.take(event)
        return pieces

    def _collect(self, event: Event) -> None:
        self._events.append(event)
        if not isinstance(event, Delta):
            self._complete.set()

    def _replay(self) -> Reply:
        assert self._conversation is not None
        for event in self._events:
            self._take(self._conversation, event)
        return self.reply


def _void(_: object) -> None:
    return None


def _with_logprobs(pieces: list[Piece], logprobs: tuple[TokenLogprob, ...]) -> list[Piece]:
    """Give the last piece the logprobs; a piece of their own if there is none."""
    if not logprobs:
        return pieces
    *before, last = pieces or [Piece()]
    return [*before, replace(last, logprobs=logprobs)]


class Conversation:
    """One request and the answer that comes of it."""

    def __init__(
        self,
        request: Request,
        prompt: str,
        answer: Answer,
        tools: dict[str, Tool],
        scheduler: Scheduler,
        prompts: PromptTokens,
    ) -> None:
        self._request, self._prompt, self._tools = request, prompt, tools
        self._scheduler, self._prompts = scheduler, prompts
        self._answer = answer
        self._raw: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def usage(self) -> Usage:
        """What the request has cost until now."""
        return self._request.usage()

    def cancel(self) -> None:
        """Ask for the request to end."""
        self._scheduler.cancel(self._request)

    def take(self, event: Event) -> tuple[list[Piece], Reply | None]:
        """Return what an event adds to the stream, and the reply if it is the last."""
        if isinstance(event, Delta):
            if event.prompt_logprobs is not None:
                return [Piece(prompt_logprobs=event.prompt_logprobs)], None
            self._raw.append(event.text)
            self._logprobs += event.logprobs
            return _with_logprobs(self._answer.feed(event.text), event.logprobs), None
        if isinstance(event, Finished):
            pieces = self._answer.finish()
            return pieces, self._reply(event)
        raise event

    def _reply(self, end: Finished) -> Reply:
        answer, request = self._answer, self._request
        calls, bad = self._checked()
        if end.reason != "cancelled" and request.text.stopped is None:  # text and tokens agree
            written = request.generated[: -1 if end.reason == "stop" else None]
            self._prompts.remember(self._prompt, "".join(self._raw), written)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.thinking:
            message["thinking"] = answer.thinking
        if answer.calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in answer.calls
            ]
        return Reply(
            text=answer.text.lstrip() if answer.thinking else answer.text,
            thinking=answer.thinking,
            tool_calls=tuple(calls),
            bad_calls=(*answer.bad_calls, *bad),
            finish_reason=end.reason,
            usage=end.usage,
            seed=request.options.seed or 0,
            message=message,
            logprobs=tuple(self._logprobs) if request.options.logprobs is not None else None,
            prompt_logprobs=None
            if request.options.prompt_logprobs is None or request.unscored
            else tuple(request.scored),
            stop=request.text.stopped,
        )

    def _checked(self) -> tuple[list[ToolCall], list[BadCall]]:
        """Tell calls that fit their tools' schemas from those that do not."""
        good: list[ToolCall] = []
        bad: list[BadCall] = []
        for call in self._answer.calls:
            if problem := self._tools[call.name].problem(call):
                bad.append(BadCall(f"{call.name}({call.arguments})", problem, call))
            else:
                good.append(call)
        return good, bad
