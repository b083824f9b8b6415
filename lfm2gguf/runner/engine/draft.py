"""A small model that guesses what a large one will say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lfm2gguf.llamacpp import Chunk, Context, Floats, Model
from lfm2gguf.runner.engine.memory import common_prefix

SURE = 0.4  # a guess less probable than this is not worth computing
PIECE = 512  # tokens of a prompt in one step, so that other requests do not wait for all of it


class Draft:
    """A draft model with a sequence of its own, for whichever request runs alone.

    Its guesses are its likeliest tokens. They are forgotten again when the large model has
    decided: the convolution state from before them is put back.
    """

    def __init__(self, model: Model, threads: int | None, n_ctx: int) -> None:
        self._context = Context(model, n_ctx=n_ctx, n_outputs=1, threads=threads)
        self.in_vain = False  # whether the last call was sure of nothing
        self._held: list[int] = []  # what is in memory
        self._certain = 0  # how many of them the state was saved behind
        self._state = b""

    def close(self) -> None:
        """Free the context, not the model."""
        self._context.close()

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return up to ``most`` tokens that may follow; none as long as it has to read first."""
        self.in_vain = False
        if min(tokens) < 0 or len(tokens) + most >= self._context.n_ctx:
            return []
        self._go_back(tokens)
        while missing := list(tokens[len(self._held) : len(self._held) + PIECE]):
            last = len(self._held) + len(missing) == len(tokens)
            self._read(missing)
            if not last:
                return []
        self._certain, self._state = len(self._held), self._context.save_state(0, partial=True)
        guesses: list[int] = []
        while (token := _sure(self._context.logits()[0])) is not None:
            guesses.append(token)
            if len(guesses) == most:
                break
            self._read([token])
        self.in_vain = not guesses
        return guesses

    def _go_back(self, tokens: Sequence[int]) -> None:
        """Forget what the text did not become, and its last token, whose logits are wanted."""
        common = common_prefix(self._held, tokens[:-1])
        if common == len(self._held):
            return
        if self._certain <= common and self._state:
            self._context.load_state(0, self._state, partial=True)
            self._context.remove(0, self._certain)
            del self._held[self._certain :]
        else:
            self._context.clear()
            self._held = []

    def _read(self, tokens: list[int]) -> None:
        self._context.decode([Chunk(0, len(self._held), tokens, 1)])
        self._held += tokens


def _sure(logits: Floats) -> int | None:
    """Return the likeliest token, unless others together are much likelier."""
    token = int(logits.argmax())
    probability = 1 / np.exp(logits - logits[token]).sum()
    return token if probability >= SURE else None
