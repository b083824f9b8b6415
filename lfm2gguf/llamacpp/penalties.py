"""What changes single logits before a token is drawn: bias, penalties, ends that are too early."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.batch import Floats
from lfm2gguf.llamacpp.model import Model, Tokens
from lfm2gguf.options import Options

LARGEST_BIAS = 1e9  # decides as any larger one does, and stays finite through all samplers


class Changes:
    """The logits of one request that are not the model's own.

    The penalties look at the last ``repeat_window`` tokens. ``too_early`` is how many tokens are
    to come before one of the ends may be drawn.
    """

    def __init__(self, model: Model, options: Options) -> None:
        bias = _bias_of(model, options)
        self._biased = np.array(list(bias), np.int64)
        self._bias = np.array([_float32(value) for value in bias.values()], np.float32)
        self._repeat = np.float32(options.repeat_penalty)
        self._frequency = np.float32(options.frequency_penalty)
        self._presence = np.float32(options.presence_penalty)
        window = model.n_ctx_train if options.repeat_window < 0 else int(options.repeat_window)
        if not options.penalizes:
            window = 0
        self.too_early = int(options.min_tokens)
        ends = [*model.end_tokens, *options.stop_tokens] if self.too_early > 0 else []
        self._ends = np.array(ends, np.int64)
        self._fixed = len(self._biased) + len(self._ends)
        self._places = np.concatenate([self._biased, self._ends, np.zeros(window, np.int64)])
        self._window = self._places[self._fixed :]  # a ring
        self._taken = 0  # tokens that went into it

    def see(self, tokens: Tokens) -> None:
        """Take tokens into the penalty window."""
        length = len(self._window)
        for token in tokens if length else ():
            self._window[self._taken % length] = token
            self._taken += 1

    @property
    def _seen(self) -> npt.NDArray[np.int64]:
        """The tokens in the window, as often as they are there."""
        return self._window[: self._taken]

    def places(self) -> npt.NDArray[np.int64]:
        """Return the ids whose logits :meth:`apply` changes; some of them more than once.

        A view, until the next token is :meth:`seen <see>`.
        """
        return self._places[: self._fixed + self._taken]

    def apply(self, logits: Floats) -> None:
        """Change logits in place, as ``llama_sampler_penalties_apply`` does."""
        if self.too_early > 0:
            logits[self._ends] = -np.inf
        if len(self._biased):
            logits[self._biased] += self._bias
        seen = self._seen
        if not len(seen):
            return
        if self._frequency or self._presence:
            seen, count = np.unique(seen, return_counts=True)
        new = logits[seen]
        less = np.minimum if self._repeat >= 1 else np.maximum
        new = less(new * self._repeat, new / self._repeat)  # the first of those below zero
        if self._frequency or self._presence:
            new -= count.astype(np.float32) * self._frequency + self._presence
        logits[seen] = new


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
