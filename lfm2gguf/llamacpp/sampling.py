"""How the next token is picked."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import time
from typing import Any

import numpy as np

from lfm2gguf.errors import OptionError, RuntimeFailureError
from lfm2gguf.llamacpp.batch import Floats
from lfm2gguf.llamacpp.candidates import CandidateArray, promising
from lfm2gguf.llamacpp.chain import make_chain
from lfm2gguf.llamacpp.grammar import json_schema_grammar
from lfm2gguf.llamacpp.lazy import LazyGrammar, Watch
from lfm2gguf.llamacpp.library import captured_log, captured_stderr, last_words, library
from lfm2gguf.llamacpp.model import Model, Tokens
from lfm2gguf.llamacpp.penalties import Changes
from lfm2gguf.options import Options

DEEPEST = 2_000  # llama.cpp's parser recurses at each parenthesis; a full stack ends the process
LARGEST = 2_000_000  # characters: a second of parsing, and some hundred megabytes
# Seconds of the processor for a grammar: at first, and for each token on average.
FIRST_SECONDS, TOKEN_SECONDS = 5.0, 0.3


class Sampler:
    """One request's sampler chain: what it has seen, and how it picks the next token.

    In llama.cpp's own order: logit bias, penalties, then :mod:`lfm2gguf.llamacpp.chain`; at
    temperature 0 the largest logit. The first two touch a few tokens only and are done
    here; the others are llama.cpp's. The penalties look at the last ``repeat_window`` accepted
    tokens. A grammar (GBNF, start symbol ``root``) is asked about
    the token drawn, and filters the whole vocabulary only if it refuses that one.
    A lazy grammar is asked only where it applies, and gives way to the options' own.
    """

    def __init__(self, model: Model, options: Options, lazy: LazyGrammar | None = None) -> None:
        self._llama = llama = library()
        self._chain: Any = None
        self._grammar: Any = None
        self._changes = Changes(model, options)
        if (grammar := _grammar_of(options)) is not None:
            self._grammar = self._compile(model, grammar)
        self._model = model
        self._watch = None if lazy is None or self._grammar else Watch(lazy)
        if lazy and self._watch:
            self._grammar = self._compile(model, lazy.text)
        self._chain = make_chain(llama, options)
        self._greedy = options.temperature <= 0
        whole = options.top_n_sigma > 0  # it looks at every token
        early = options.top_p < 1 or options.typical_p < 1  # these look before min_p does
        self._top_k = 0 if whole else int(options.top_k)
        self._min_p = 0.0 if whole or early else float(options.min_p)
        self._array = CandidateArray(llama, *model.candidates)
        self._once, self._over = lazy is not None and lazy.once, False
        self._left = FIRST_SECONDS

    def _compile(self, model: Model, grammar: str) -> Any:
        try:
            text = grammar.encode()
        except UnicodeEncodeError as error:
            raise OptionError(
                f"grammar: UTF-8 cannot express {error.object[error.start]!r} ({error.reason}): "
                "leave it out"
            ) from None
        if len(text) > LARGEST:
            raise OptionError(
                f"grammar: it has {len(text)} bytes, and {LARGEST} can be had: ask for less at once"
            )
        if _nesting(grammar) > DEEPEST:
            raise OptionError(
                f"grammar: it nests deeper than {DEEPEST} parentheses: allow fewer repetitions "
                "(maxLength and maxItems of a JSON schema count)"
            )
        if wrong := _backward(grammar):
            raise OptionError(f"grammar: {wrong} repeats at least more often than at most")
        if "<" in _TEXT.sub("", grammar):  # llama.cpp allows what it then ends the process of
            raise OptionError(
                "grammar: tokens (such as <[1]>) cannot stand in it; write their text"
            )
        with captured_log() as log, captured_stderr() as said:
            made = self._llama.llama_sampler_init_grammar(model.vocab, text, b"root")
        if not made:
            reason = said[0].decode("utf-8", "replace").rpartition("grammar: ")[2] if said else ""
            raise OptionError(f"grammar: it does not parse: {reason.strip() or last_words(log)}")
        for line in said:
            os.write(2, line)
        return made

    def close(self) -> None:
        """Free the chain."""
        for sampler in filter(None, (self._chain, self._grammar)):
            self._llama.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def see(self, tokens: Tokens) -> None:
        """Take prompt tokens into the penalty window."""
        self._changes.see(tokens)

    def sample(self, logits: Floats) -> int:
        """Pick, accept and return the next token; ``logits`` is ``(n_vocab,)`` float32.

        Bias and penalties are written into the logits and taken out again in the end: a copy
        would cost as much as all the rest.

        Raises:
            OptionError: the grammar takes too long.
            RuntimeFailureError: bias and grammar leave no token to pick, or the model's weights
                have it compute what is not a number.
        """
        if self._over:
            return self._model.end_tokens[0]
        places = self._changes.places()
        raw = logits[places] if len(places) else None
        try:
            if raw is not None:
                self._changes.apply(logits)
            token = self._sample(logits)
        finally:
            if raw is not None:
                logits[places] = raw
        self._changes.see([token])
        self._changes.too_early -= 1
        return token

    def _sample(self, logits: Floats) -> int:
        most, token = self._pick(logits)
        if not most < np.inf:  # C code would pick what is no token
            raise RuntimeFailureError(
                "the model computes logits that are not numbers: its weights are damaged, or the "
                "options go beyond float32; see what `lfm2gguf doctor` says of the file"
            )
        bound = self._grammar and (self._watch is None or self._watch.applies)
        if bound and not self._allows(logits, token):
            logits = self._filtered(logits)
            _, token = self._pick(logits)
        if logits[token] == -np.inf and self._changes.too_early > 0:  # the grammar is at its end
            return self._model.end_tokens[0]
        if logits[token] == -np.inf:  # accepting it would throw in C++ and end the process
            raise RuntimeFailureError("grammar and logit bias leave no token to continue with")
        if bound:
            self._ask(self._llama.llama_sampler_accept, self._grammar, token)
            self._check_time()
        if self._watch and self._watch.follow(self._model.detokenize([token], special=True)):
            self._llama.llama_sampler_reset(self._grammar)
            self._over = self._once and len(self._model.end_tokens) > 0
        return token

    def _pick(self, logits: Floats) -> tuple[float, int]:
        """Return the largest logit, NaN if one is, and the token that is picked."""
        if self._greedy:
            token = int(logits.argmax())
            return float(logits[token]), token
        most, ids = promising(logits, self._top_k, self._min_p)
        if not most < np.inf:
            return most, 0
        array = self._array.fill(logits, ids)
        self._llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        return most, int(array.data[array.selected].id)

    def _filtered(self, logits: Floats) -> Floats:
        """Return the logits with -inf for all tokens that the grammar refuses."""
        array = self._array.fill(logits)
        self._ask(self._llama.llama_sampler_apply, self._grammar, ctypes.byref(array))
        return self._array.data["logit"].copy()

    def _allows(self, logits: Floats, token: int) -> bool:
        array = self._array.fill(logits, np.array([token]))
        self._ask(self._llama.llama_sampler_apply, self._grammar, ctypes.byref(array))
        return bool(array.data[0].logit != -np.inf)

    def _ask(self, call: Any, *arguments: Any) -> None:
        """Call the grammar, and count the time that it takes."""
        began = time.thread_time()
        call(*arguments)
        self._left -= time.thread_time() - began

    def _check_time(self) -> None:
        """End an answer whose grammar holds up all the others that are computed with it."""
        self._left += TOKEN_SECONDS
        if self._left < 0:
            raise OptionError(
                f"grammar: it takes llama.cpp more than {TOKEN_SECONDS:g} s for each token: write "
                "classes ([a-z]) in place of alternatives, and less nesting"
            )


_TEXT = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)


def _grammar_of(options: Options) -> str | None:
    if options.json_schema is not None:
        return json_schema_grammar(options.json_schema)
    return options.grammar


_COUNTS = re.compile(r"\{\s*0*(\d{1,9})\s*,\s*0*(\d{1,9})\s*\}")


def _backward(grammar: str) -> str | None:
    """Return a repetition such as ``{2,1}``, of which llama.cpp makes 2**64 - 1 rules."""
    found = _COUNTS.finditer(_TEXT.sub("", grammar))
    return next((match[0] for match in found if int(match[1]) > int(match[2])), None)


def _nesting(grammar: str) -> int:
    """Return how deep the parentheses of a grammar nest, literals and comments left out."""
    steps = ({"(": 1, ")": -1}.get(char, 0) for char in _TEXT.sub("", grammar))
    return max(itertools.accumulate(steps), default=0)
