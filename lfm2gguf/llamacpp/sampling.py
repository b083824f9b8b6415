"""How the next token is picked."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import re
import time
from collections import Counter, deque
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import OptionError, RuntimeFailureError
from lfm2gguf.llamacpp.chain import make_chain
from lfm2gguf.llamacpp.context import Floats
from lfm2gguf.llamacpp.grammar import json_schema_grammar
from lfm2gguf.llamacpp.lazy import LazyGrammar, Watch
from lfm2gguf.llamacpp.library import captured_log, captured_stderr, last_words, library
from lfm2gguf.llamacpp.model import Model, Tokens
from lfm2gguf.options import Options

DEEPEST = 2_000  # llama.cpp's parser recurses at each parenthesis; a full stack ends the process
LARGEST_BIAS = 1e9  # decides as any larger one does, and stays finite through all samplers
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
        bias = _bias_of(model, options)
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
        self._biased = np.array(list(bias), np.int64)
        self._bias = np.array([_float32(value) for value in bias.values()], np.float32)
        self._repeat = np.float32(options.repeat_penalty)
        self._frequency = np.float32(options.frequency_penalty)
        self._presence = np.float32(options.presence_penalty)
        window = model.n_ctx_train if options.repeat_window < 0 else int(options.repeat_window)
        self._window: deque[int] = deque(maxlen=window if options.penalizes else 0)
        self._array = _CandidateArray(llama, *model.candidates)
        self._once, self._over = lazy is not None and lazy.once, False
        self._left = FIRST_SECONDS
        self._too_early = int(options.min_tokens)  # tokens before which none of the ends is drawn
        self._ends = [*model.end_tokens, *options.stop_tokens] if self._too_early else []

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
        self._window.extend(tokens)

    def sample(self, logits: Floats) -> int:
        """Pick, accept and return the next token; ``logits`` is ``(n_vocab,)`` float32.

        Raises:
            OptionError: the grammar takes too long.
            RuntimeFailureError: bias and grammar leave no token to pick, or the model's weights
                have it compute what is not a number.
        """
        if self._over:
            return self._model.end_tokens[0]
        logits = self._adjusted(logits)
        if not logits.max() < np.inf:  # C code would pick what is no token
            raise RuntimeFailureError(
                "the model computes logits that are not numbers: its weights are damaged, or the "
                "options go beyond float32; see what `lfm2gguf doctor` says of the file"
            )
        token = self._pick(logits)
        bound = self._grammar and (self._watch is None or self._watch.applies)
        if bound and not self._allows(logits, token):
            logits = self._filtered(logits)
            token = self._pick(logits)
        if logits[token] == -np.inf and self._too_early > 0:  # the grammar is at its end
            return self._model.end_tokens[0]
        if logits[token] == -np.inf:  # accepting it would throw in C++ and end the process
            raise RuntimeFailureError("grammar and logit bias leave no token to continue with")
        self._window.append(token)
        if bound:
            self._ask(self._llama.llama_sampler_accept, self._grammar, token)
            self._check_time()
        if self._watch and self._watch.follow(self._model.detokenize([token], special=True)):
            self._llama.llama_sampler_reset(self._grammar)
            self._over = self._once and len(self._model.end_tokens) > 0
        self._too_early -= 1
        return token

    def _adjusted(self, logits: Floats) -> Floats:
        """Apply bias and penalties, as ``llama_sampler_penalties_apply`` does."""
        if not len(self._biased) and not self._window and self._too_early <= 0:
            return logits
        logits = logits.copy()
        if self._too_early > 0:
            logits[self._ends] = -np.inf
        logits[self._biased] += self._bias
        if self._window:
            counts = Counter(self._window)
            seen, count = np.array(list(counts)), np.array(list(counts.values()), np.float32)
            new = logits[seen]
            new = np.where(new <= 0, new * self._repeat, new / self._repeat)
            logits[seen] = new - (count * self._frequency + self._presence)
        return logits

    def _pick(self, logits: Floats) -> int:
        if self._greedy:
            return int(logits.argmax())
        array = self._array.fill(logits, self._promising(logits))
        self._llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _promising(self, logits: Floats) -> npt.NDArray[np.int64] | None:
        """Return the ids that top_k or min_p can leave, and perhaps a few more; None: all.

        The chain is linear in its candidates, and would spend a millisecond on 65,536.
        """
        if self._top_k:
            groups = logits[: len(logits) // 64 * 64].reshape(64, -1).max(axis=0)
            if len(groups) <= self._top_k:
                return None
            floor = np.partition(groups, -self._top_k)[-self._top_k]  # k tokens reach it
        elif self._min_p:
            floor = logits.max() + np.log(self._min_p) - 0.001
        else:
            return None
        return np.flatnonzero(logits >= floor)

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


class _CandidateArray:
    """A ``llama_token_data_array`` over a NumPy array."""

    def __init__(self, llama: Any, data: npt.NDArray[Any], ids: npt.NDArray[np.int32]) -> None:
        self.data, self._ids = data, ids
        self._struct = llama.llama_token_data_array()
        kind = dict(llama.llama_token_data_array._fields_)["data"]
        self._pointer = ctypes.cast(data.ctypes.data, kind)

    def fill(self, logits: Floats, ids: npt.NDArray[np.int64] | None = None) -> Any:
        """Write the candidates, all or those of ``ids``, and return the C structure."""
        size = len(self.data) if ids is None else len(ids)
        self.data["id"][:size] = self._ids if ids is None else ids
        self.data["logit"][:size] = logits if ids is None else logits[ids]
        array = self._struct
        array.data, array.size, array.selected, array.sorted = self._pointer, size, -1, False
        return array


_TEXT = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)


def _float32(bias: float) -> float:
    return min(bias, LARGEST_BIAS) if bias >= -LARGEST_BIAS else -math.inf


def _bias_of(model: Model, options: Options) -> dict[int, float]:
    bias = dict(options.logit_bias or {})
    for name, tokens in (("logit_bias", bias), ("stop_tokens", options.stop_tokens)):
        if wrong := [token for token in tokens if not 0 <= token < model.n_vocab]:
            raise OptionError(f"{name}: {wrong[0]} is not a token id (0 to {model.n_vocab - 1})")
    if options.ignore_eos:
        bias |= dict.fromkeys(model.end_tokens, -np.inf)
    return bias


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
