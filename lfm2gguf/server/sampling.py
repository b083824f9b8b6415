"""From a request's sampling parameters to the Runner's options."""

from __future__ import annotations

from typing import Any

from lfm2gguf.runner.options import LARGEST_SEED
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.requests import Sampling

_SAME = (
    "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "repeat_window",
    "frequency_penalty", "presence_penalty", "stop", "ignore_eos",
)  # fmt: skip


def options_of(body: Sampling) -> list[dict[str, Any]]:
    """Return the options of each of the ``n`` answers; with a seed, each has its own."""
    given = {name: getattr(body, name) for name in _SAME}
    given["max_tokens"] = body.max_tokens
    given["logit_bias"] = _logit_bias(body.logit_bias)
    options = {name: value for name, value in given.items() if value is not None}
    if body.seed is None:
        return [options] * (body.n or 1)
    return [{**options, "seed": (body.seed + i) % (LARGEST_SEED + 1)} for i in range(body.n or 1)]


def _logit_bias(bias: dict[str, float] | None) -> dict[int, float] | None:
    wrong = [token for token in bias or () if not (token.isascii() and token.isdigit())]
    if wrong:
        raise Refusal(400, f"logit_bias: {wrong[0]!r} is no token id", param="logit_bias")
    return {int(token): value for token, value in bias.items()} if bias else None
