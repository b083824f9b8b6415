"""From a rendered conversation to the tokens the memory may already hold."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence

from lfm2gguf.chat.dialect import LFM2, Dialect
from lfm2gguf.chat.guard import CUT
from lfm2gguf.llamacpp import Model
from lfm2gguf.runner.media import PLACES, Encoded

REMEMBERED = 256  # answers
NEAR = 32  # tokens: marks closer to each other than this are not worth a cut


class PromptTokens:
    """Tokenizes prompts turn by turn, and remembers the tokens of the answers it gave.

    A model does not always write the tokens that its text tokenizes to. If the next turn's
    prompt spelled an answer otherwise than it was generated, nothing from there on would be in
    memory. The markers of turns split a text for the tokenizer too, so that each turn can be
    tokenized, and remembered, on its own.
    """

    def __init__(self, model: Model, dialect: Dialect = LFM2) -> None:
        self._model = model
        self._markers = re.compile(f"({'|'.join(map(re.escape, dialect.turn))})")
        self._answers: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._turn = model.tokenize(dialect.turn[0])

    def encode(self, text: str, media: Sequence[Encoded] = ()) -> list[int]:
        """Return the tokens of a rendered prompt; BOS is what the text itself has of it."""
        tokens: list[int] = []
        for part in self._markers.split(text):
            tokens += self._answers.get(part.replace(CUT, "")) or self._tokenize(part, media)
        return tokens

    def _tokenize(self, text: str, media: Sequence[Encoded] = ()) -> list[int]:
        tokens: list[int] = []
        for i, piece in enumerate(PLACES.split(text)):  # every other piece is a medium's number
            if i % 2:
                tokens += media[int(piece)].tokens
            else:
                tokens += [t for plain in piece.split(CUT) for t in self._model.tokenize(plain)]
        return tokens

    def remember(self, prompt: str, answer: str, tokens: Sequence[int]) -> None:
        """Note how an answer was generated, for the next prompt that contains it.

        Only where its tokens say the answer's text and nothing else: a token without a text, or
        one that is not shown, would come with that text into everybody's prompts.
        """
        *before, head = self._markers.split(prompt)
        pieces = [self._model.piece(token, special=True) for token in tokens]
        if not before or not all(pieces) or b"".join(pieces) != answer.encode():
            return
        if not tokens or self._markers.search(answer):
            return
        self._answers[head + answer] = (*self._tokenize(head), *tokens)
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def marks(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Return the lengths at which conversations part, and their state is worth saving.

        Behind the system prompt (the second turn's beginning), before the last question, and at
        the end.
        """
        end = len(tokens)
        if len(self._turn) != 1:
            return (end,)
        turns = [i for i, token in enumerate(tokens) if token == self._turn[0]]
        if len(turns) < 3 or turns[1] < NEAR:
            return (end,)
        system, question = turns[1], turns[-2]
        if question - system < NEAR or end - question < NEAR:
            return (system, end)
        return (system, question, end)
