"""How the next token is picked."""

from __future__ import annotations

import ctypes
import itertools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import OptionError, RuntimeFailureError
from lfm2gguf.llamacpp.context import Floats
from lfm2gguf.llamacpp.library import captured_log, last_words, library
from lfm2gguf.llamacpp.model import CANDIDATE, Model, Tokens

DEEPEST = 2_000  # llama.cpp's parser recurses at each parenthesis; a full stack ends the process


class Sampler:
    """One request's sampler chain: what it has seen, and how it picks the next token.

    In llama.cpp's own order: logit bias, penalties, top_k, top_p, min_p, temperature,
    seeded draw; at temperature 0 the largest logit. The penalties look at the last
    ``repeat_window`` accepted tokens. A grammar (GBNF, start symbol ``root``) is asked about
    the token drawn, and filters the whole vocabulary only if it refuses that one.
    """

    def __init__(
        self,
        model: Model,
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repeat_penalty: float,
        repeat_window: int,
        seed: int,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        logit_bias: dict[int, float] | None = None,
        grammar: str | None = None,
    ) -> None:
        self._llama = llama = library()
        self._chain: Any = None
        self._grammar: Any = None
        if grammar is not None:
            self._grammar = self._compile(model, grammar)
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        bias = logit_bias or {}
        biases = (llama.llama_logit_bias * len(bias))(*bias.items())
        n_vocab = model.n_vocab
        greedy = temperature <= 0
        penalties = (frequency_penalty, presence_penalty)
        for wanted, make, arguments in (
            (bias, llama.llama_sampler_init_logit_bias, (n_vocab, len(bias), biases)),
            (
                repeat_window and (repeat_penalty, *penalties) != (1, 0, 0),
                llama.llama_sampler_init_penalties,
                (n_vocab, repeat_window, repeat_penalty, *penalties),
            ),
            (greedy, llama.llama_sampler_init_greedy, ()),
            (not greedy and top_k > 0, llama.llama_sampler_init_top_k, (top_k,)),
            (not greedy and top_p < 1, llama.llama_sampler_init_top_p, (top_p, 1)),
            (not greedy and min_p > 0, llama.llama_sampler_init_min_p, (min_p, 1)),
            (not greedy, llama.llama_sampler_init_temp, (temperature,)),
            (not greedy, llama.llama_sampler_init_dist, (seed & 0xFFFFFFFF,)),
        ):
            if wanted:
                llama.llama_sampler_chain_add(self._chain, make(*arguments))
        self._data, self._ids = model._candidates
        self._array = llama.llama_token_data_array()

    def _compile(self, model: Model, grammar: str) -> Any:
        if _nesting(grammar) > DEEPEST:
            raise OptionError(
                f"the grammar nests deeper than {DEEPEST} parentheses: allow fewer repetitions "
                "(maxLength and maxItems of a JSON schema count)"
            )
        with captured_log() as log:
            made = self._llama.llama_sampler_init_grammar(model._vocab, grammar.encode(), b"root")
        if not made:
            raise OptionError(f"the grammar does not parse: {last_words(log)}")
        return made

    def close(self) -> None:
        """Free the chain."""
        for sampler in filter(None, (self._chain, self._grammar)):
            self._llama.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def see(self, tokens: Tokens) -> None:
        """Take prompt tokens into the penalty window."""
        for token in tokens:
            self._llama.llama_sampler_accept(self._chain, token)

    def sample(self, logits: Floats) -> int:
        """Pick, accept and return the next token; ``logits`` is ``(n_vocab,)`` float32.

        Raises :class:`RuntimeFailureError` when bias and grammar leave nothing to pick.
        """
        token, logit = self._draw(logits, None)
        if self._grammar and not self._allows(token):
            token, logit = self._draw(logits, self._grammar)
        if logit == -np.inf:  # accepting it would throw in C++ and end the process
            raise RuntimeFailureError("grammar and logit bias leave no token to continue with")
        self._llama.llama_sampler_accept(self._chain, token)
        if self._grammar:
            self._llama.llama_sampler_accept(self._grammar, token)
        return token

    def _draw(self, logits: Floats, first: Any) -> tuple[int, float]:
        self._data["id"], self._data["logit"] = self._ids, logits
        array = self._candidates(self._data)
        if first:
            self._llama.llama_sampler_apply(first, ctypes.byref(array))
        self._llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        picked = array.data[array.selected]
        return int(picked.id), float(picked.logit)

    def _allows(self, token: int) -> bool:
        one = np.array([(token, 1.0, 0.0)], CANDIDATE)
        array = self._candidates(one)
        self._llama.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(array.data[0].logit != -np.inf)

    def _candidates(self, data: npt.NDArray[Any]) -> Any:
        array = self._array
        kind = dict(self._llama.llama_token_data_array._fields_)["data"]
        array.data = ctypes.cast(data.ctypes.data, kind)
        array.size, array.selected, array.sorted = len(data), -1, False
        return array


_TEXT = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)


def _nesting(grammar: str) -> int:
    """Return how deep the parentheses of a grammar nest, literals and comments left out."""
    steps = ({"(": 1, ")": -1}.get(char, 0) for char in _TEXT.sub("", grammar))
    return max(itertools.accumulate(steps), default=0)
