"""From a request's sampling parameters to the Runner's options."""

from __future__ import annotations

from typing import Any

from lfm2gguf.options import LARGEST_SEED, option_table
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.requests import Sampling

_OWN = {"seed", "logit_bias", "logprobs"}  # forms of their own on the wire
_SAME = (Sampling.model_fields.keys() & option_table().keys()) - _OWN


def options_of(body: Sampling) -> list[dict[str, Any]]:
    """Return the options of each of the ``n`` answers; with a seed, each has its own.

    Raises:
        Refusal: a key of ``logit_bias`` is not a token id.
    """
    given: dict[str, Any] = {name: getattr(body, name) for name in _SAME}
    given["logit_bias"] = _logit_bias(body.logit_bias)
    options = {name: value for name, value in given.items() if value is not None}
    if body.seed is None:
        return [options] * (body.n or 1)
    return [{**options, "seed": (body.seed + i) % (LARGEST_SEED + 1)} for i in range(body.n or 1)]


def _logit_bias(bias: dict[str, float] | None) -> dict[int, float] | None:
    wrong = [token for token in bias or () if not (token.isascii() and token.isdigit())]
    if wrong:
        raise Refusal(400, f"logit_bias: {wrong[0]!r} is not a token id", param="logit_bias")
    return {int(token): value for token, value in bias.items()} if bias else None
