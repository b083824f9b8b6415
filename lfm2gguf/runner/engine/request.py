"""One request: its prompt, its state, and the events it reports on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lfm2gguf.errors import Lfm2ggufError, RuntimeFailureError
from lfm2gguf.llamacpp import Floats, LazyGrammar
from lfm2gguf.options import Options
from lfm2gguf.runner.engine.guesses import Guesses
from lfm2gguf.runner.engine.memory import Slot, Variant
from lfm2gguf.runner.engine.text import TextStream


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its natural log-probability, and the likeliest in its place."""

    token: int
    text: bytes
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def logprobs_of(logits: Floats, token: int, text: bytes, count: int) -> TokenLogprob:
    """Return what is reported of a token where the model gave ``logits``, ``(n_vocab,)`` float32.

    The ``count`` likeliest come with it, the likeliest first, of equal ones the lowest id.

    Raises:
        RuntimeFailureError: the logits are no numbers.
    """
    most = logits.max()
    whole = float(most) + math.log(np.exp(logits - most).sum(dtype=np.float64))
    if not math.isfinite(whole):
        raise RuntimeFailureError("the model computes what is no number: lfm2gguf doctor")
    top: tuple[tuple[int, float], ...] = ()
    if count:
        least = np.partition(logits, -count)[-count]  # sorting all would take milliseconds
        likely = np.flatnonzero(logits >= least)
        best = likely[np.argsort(-logits[likely], kind="stable")[:count]]
        top = tuple((int(i), float(logits[i]) - whole) for i in best)
    return TokenLogprob(token, text, float(logits[token]) - whole, top)


@dataclass(frozen=True)
class Usage:
    """What a request cost. Times are in seconds, speeds in tokens per second.

    ``prefilled_tokens`` were computed, ``cached_tokens`` were held already; ``waited`` is the
    time before a sequence was free. Of the answer's tokens, ``guessed_right`` were guessed (of
    ``guessed_tokens`` in all) and so needed no step of their own.
    """

    prompt_tokens: int
    cached_tokens: int
    prefilled_tokens: int
    completion_tokens: int
    waited: float
    time_to_first_token: float
    seconds: float
    prefill_speed: float
    decode_speed: float
    guessed_tokens: int = 0
    guessed_right: int = 0


@dataclass(frozen=True)
class Load:
    """What a runner is doing, and the tokens it has dealt with since it was opened."""

    running: int
    waiting: int
    prefilled_tokens: int
    cached_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class Delta:
    """New text of an answer; with ``logprobs`` asked for, one for each token.

    Where ``prompt_logprobs`` are asked for they come by themselves, before all else.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class Finished:
    """The end of an answer: ``stop``, ``length``, ``context`` or ``cancelled``."""

    reason: str
    usage: Usage


Event = Delta | Finished | Lfm2ggufError


@dataclass(eq=False)
class Request:
    """One prompt on its way to an answer. ``emit`` is called by the scheduler's thread."""

    prompt: list[int]
    options: Options
    emit: Callable[[Event], None]
    marks: Sequence[int] = ()  # lengths at which the prompt's state is worth saving
    calls: LazyGrammar | None = None  # what a tool call looks like
    rows: Mapping[int, Floats] = field(default_factory=dict)  # of the prompt's numbers below zero
    generated: list[int] = field(default_factory=list)
    cancelled: bool = False
    slot: Slot | None = None
    cached: int = 0
    prefilled: int = 0
    guessed: int = 0
    guessed_right: int = 0
    guesses: Guesses | None = None
    n_ctx: int = 0  # bounds the guesses, too
    submitted: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    first_token: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)  # what the memory is to hold: prompt and answer
        self.text = TextStream(self.options.stops)
        self.unscored = self.options.prompt_logprobs is not None  # until all of the prompt is
        self.scored: list[TokenLogprob] = []  # of the prompt's tokens but the first
        adapter, scale = self.options.adapter, self.options.adapter_scale
        self.variant: Variant = (adapter, scale) if adapter is not None and scale else None

    @property
    def missing(self) -> int:
        """Tokens not yet in memory; the answer goes on when it is none."""
        return len(self.tokens) - len(self.slot.tokens if self.slot else ())

    @property
    def decoding(self) -> bool:
        """Whether the next step is a single token of the answer."""
        return bool(self.generated) and self.missing == 1

    def stretch(self, start: int, stop: int) -> tuple[list[int], Floats | None]:
        """Return the next tokens, as far as they are of one kind, and the embeddings of media."""
        tokens = self.tokens[start:stop]
        if not self.rows:
            return tokens, None
        kinds = [token < 0 for token in tokens]
        tokens = tokens[: kinds.index(not kinds[0])] if (not kinds[0]) in kinds else tokens
        return tokens, np.stack([self.rows[token] for token in tokens]) if kinds[0] else None

    def score(self, start: int, logits: Sequence[Floats], piece: Callable[[int], bytes]) -> None:
        """Note the prompt's tokens behind those from ``start`` on that gave ``logits``."""
        del self.scored[start:]  # of before the request had to give way
        following = self.prompt[start + 1 : start + 1 + len(logits)]
        for token, row in zip(following, logits, strict=False):  # the last has none
            count = self.options.prompt_logprobs or 0
            self.scored.append(logprobs_of(row, token, piece(token), count))
        self.unscored = start + len(logits) < len(self.prompt)

    def guess(self) -> list[int]:
        """Return tokens that may follow the last one, to be computed with it."""
        if self.guesses is None:
            return []
        room = self.n_ctx - len(self.tokens) - 1
        if self.options.max_tokens is not None:
            room = min(room, self.options.max_tokens - len(self.generated) - 1)
        return self.guesses.guess(self.tokens, room)

    def learn(self, guessed: int, right: int) -> None:
        """Take into account how many guesses the sampler has drawn as well."""
        self.guessed += guessed
        self.guessed_right += right
        if self.guesses is not None:
            self.guesses.learn(len(self.tokens), guessed, right)

    @property
    def penalty_window(self) -> list[int]:
        """The part of the prompt that the penalties look at."""
        size = self.options.repeat_window
        if not self.options.penalizes:
            return []
        words = [token for token in self.prompt if token >= 0]  # embeddings are none
        return words[-size:] if size > 0 else words

    def usage(self) -> Usage:
        """Return what the request has cost until now."""
        now = time.perf_counter()
        first, count = self.first_token or now, len(self.generated)
        started = self.started or now
        return Usage(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached,
            prefilled_tokens=self.prefilled,
            completion_tokens=count,
            waited=started - self.submitted,
            time_to_first_token=first - self.submitted,
            seconds=now - self.submitted,
            prefill_speed=self.prefilled / max(first - started, 1e-9),
            decode_speed=(count - 1) / max(now - first, 1e-9) if count > 1 else 0.0,
            guessed_tokens=self.guessed,
            guessed_right=self.guessed_right,
        )
