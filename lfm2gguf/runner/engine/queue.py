"""Who is served next, and how much: admission, the adapters' turns, the share of each step."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping

from lfm2gguf.errors import ContextError, OptionError
from lfm2gguf.llamacpp import Adapter, Chunk, Context
from lfm2gguf.runner.engine.memory import Memory, Variant
from lfm2gguf.runner.engine.request import Request

STALL = 0.4  # seconds that a piece of a prompt may hold up requests that are decoding
SMALLEST_PIECE = 64  # tokens; below this the matrix products lose their efficiency
MOST_SCORED = 128  # tokens of prompts in a step whose logits are read: more are hardly faster
TURN = 32  # steps that the requests of one adapter have before another's

Work = list[tuple[Request, Chunk]]


class Queue:
    """The requests of a context: those that wait, and those that hold a sequence.

    ``lock`` guards both lists. Any thread may append to ``waiting``; the rest is for the thread
    that owns the context.
    """

    def __init__(
        self,
        context: Context,
        memory: Memory,
        adapters: Mapping[str, Adapter],
        lock: threading.Condition,
    ) -> None:
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # oldest first
        self.speed = 0.0  # tokens of prompts per second, as last measured
        self._context, self._memory, self._adapters, self._lock = context, memory, adapters, lock
        self._variant: Variant = None  # the adapter that is applied
        self._turn = 0  # steps it has been
        self._finished = 0
        self._resume_after = 0  # a request that had to give way waits for another to finish

    def __iter__(self) -> Iterator[Request]:
        with self._lock:
            return iter([*self.running, *self.waiting])

    def cancelled(self) -> list[Request]:
        """Return the requests that are to end."""
        with self._lock:
            found = [request for request in self.running if request.cancelled]
            if self.waiting:
                found += [request for request in self.waiting if request.cancelled]
            return found

    # admission

    def check(self, request: Request) -> None:
        """Check that a request can be served at all.

        Raises:
            ContextError: its prompt does not fit into the context.
            OptionError: its prompt is empty or lacks a medium, or its adapter unknown.
        """
        if len(request.prompt) >= self._context.n_ctx:
            raise ContextError(
                f"the prompt has {len(request.prompt)} tokens, the context {self._context.n_ctx}: "
                "shorten it or open the model with a larger context; of a conversation, "
                "overflow='drop' in Python leaves out the oldest turns"
            )
        if not request.prompt:
            raise OptionError("the prompt is empty")
        if any(token < 0 and token not in request.rows for token in request.prompt):
            raise OptionError("the prompt has a place for an image or sound, and nothing for it")
        if request.rows and request.unscored:
            raise OptionError("prompt_logprobs: an image or sound in the prompt has none")
        if request.variant and request.variant[0] not in self._adapters:
            known = ", ".join(self._adapters) or "none: give adapters={name: file}"
            raise OptionError(
                f"adapter is {request.variant[0]!r}: the model was opened with {known}"
            )

    def admit(self) -> Iterator[Request]:
        """Give free sequences to those who waited longest, as far as the context has room."""
        while self.waiting and self._memory.idle and self._has_room(self.waiting[0]):
            request = self.waiting[0]
            known = [] if request.unscored else request.tokens  # what is held gives no logits
            request.slot = self._memory.take(known, request.variant)
            with self._lock:
                self.waiting.remove(request)
                self.running.append(request)
            yield request

    def _has_room(self, request: Request) -> bool:
        """Judge by what runs; sequences that only remember give way when it is needed."""
        if not self.running:
            return True
        if request.generated and self._finished < self._resume_after:
            return False
        needed = sum(len(r.tokens) for r in self.running) + len(request.tokens)
        return needed + SMALLEST_PIECE * (len(self.running) + 1) <= self._context.n_ctx

    def send_back(self) -> None:
        """Put the youngest request back into the queue; its tokens are computed again later."""
        request = self.running.pop()
        assert request.slot is not None
        self._memory.release(request.slot)
        self._memory.forget(request.slot)
        request.slot = None
        self._resume_after = self._finished + 1
        with self._lock:
            self.waiting.appendleft(request)

    def remove(self, request: Request) -> None:
        """Take out a request that has ended."""
        with self._lock:
            (self.running if request in self.running else self.waiting).remove(request)
        if request.slot:
            self._memory.release(request.slot)
            request.slot = None
        self._finished += 1

    # turns

    def batches(self) -> list[Work]:
        """Return who decodes how much in this step, as the batches to be decoded.

        All tokens go together; embeddings, which llama.cpp does not mix with them, one by one.
        """
        if alone := self._goes_on():
            return [[(alone, _next_token(alone))]]
        work = self._plan()
        tokens = [item for item in work if item[1].rows is None]
        media = [[item] for item in work if item[1].rows is not None]
        return [tokens, *media] if tokens else media

    def _goes_on(self) -> Request | None:
        """Return the only request, if all it lacks is its last token.

        It is the common case, and what follows is for the others: after a decode nothing is in
        the processor's caches, so that each line between two tokens costs.
        """
        if len(self.running) != 1:
            return None
        request = self.running[0]
        return request if request.decoding and request.variant == self._variant else None

    def _plan(self) -> Work:
        """Share out the step.

        All single tokens. Of prompts, a piece of the oldest where others are decoding; else
        equal pieces of all, which go through the model together: a ubatch of a hybrid model
        holds as many tokens of one sequence as of another (llama.cpp,
        ``llama_batch_allocr::split_equal``).
        """
        turn = self._take_turn()
        decoding = [request for request in turn if request.decoding]
        prefilling = [request for request in turn if not request.decoding]
        budget = self._budget(busy=bool(decoding))
        next_token = _next_token if len(self.running) == 1 else _chunk
        work = [(request, next_token(request)) for request in decoding]
        share = budget if decoding else max(SMALLEST_PIECE, budget // max(1, len(prefilling)))
        most = max(1, MOST_SCORED // max(1, sum(request.unscored for request in prefilling)))
        for request in prefilling:
            if budget <= 0:
                break
            size = min(budget, share, most) if request.unscored else min(budget, share)
            work.append((request, _chunk(request, size)))
            budget -= len(work[-1][1].tokens)
        return work

    def _take_turn(self) -> list[Request]:
        """Return the running requests of one adapter, by turns: it applies to a whole batch."""
        variants = list(dict.fromkeys(request.variant for request in self.running))
        if len(variants) > 1 and self._turn >= TURN and self._variant in variants:
            following = variants[(variants.index(self._variant) + 1) % len(variants)]
        else:
            following = self._variant if self._variant in variants else next(iter(variants), None)
        if following != self._variant:
            name, scale = following or ("", 0.0)
            self._context.use(self._adapters.get(name), scale)
            self._variant, self._turn = following, 0
        self._turn += 1
        return [request for request in self.running if request.variant == following]

    def _budget(self, *, busy: bool) -> int:
        room = min(self._context.n_ubatch, self._context.n_batch - len(self.running))
        if not busy:
            return room
        return min(room, max(SMALLEST_PIECE, int(self.speed * STALL)))


def _next_token(request: Request) -> Chunk:
    """Return the last token of a request's answer, and guesses of what follows it.

    Guesses come only where nobody else computes: a ubatch of a hybrid model holds as many tokens
    of one sequence as of another, so that others would wait for a run of their own.
    """
    assert request.slot is not None
    tokens = [request.tokens[-1], *request.guess()]
    return Chunk(request.slot.seq, len(request.slot.tokens), tokens, len(tokens))


def _chunk(request: Request, budget: int = 1) -> Chunk:
    """Return the next tokens of a request, up to a mark at most."""
    assert request.slot is not None
    held = len(request.slot.tokens)
    stop = min(held + budget, len(request.tokens))
    stop = min([mark for mark in request.marks if held < mark < stop], default=stop)
    tokens, rows = request.stretch(held, stop)
    outputs = int(held + len(tokens) == len(request.tokens))
    outputs = len(tokens) if request.unscored else outputs
    return Chunk(request.slot.seq, held, tokens, outputs, rows)
