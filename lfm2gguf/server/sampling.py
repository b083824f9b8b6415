"""From a request's sampling parameters to the Runner's options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import check_grammar
from lfm2gguf.options import LARGEST_SEED, option_table
from lfm2gguf.runner import Runner, text_grammar
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.requests import Sampling
from lfm2gguf.server.service import Service

_OWN = {"seed", "logit_bias", "logprobs", "grammar"}  # forms of their own on the wire
_SAME = (Sampling.model_fields.keys() & option_table().keys()) - _OWN


def options_of(service: Service, body: Sampling) -> list[dict[str, Any]]:
    """Return the options of each of the ``n`` answers; with a seed, each has its own.

    Raises:
        Refusal: ``logit_bias`` or ``lora`` names what is not there, or two forms are asked for.
    """
    given: dict[str, Any] = {name: getattr(body, name) for name in _SAME}
    given["logit_bias"] = _logit_bias(service.runner, body.logit_bias)
    given["grammar"] = _grammar(service, body)
    given |= _adapter(service, body)
    options = {name: value for name, value in given.items() if value is not None}
    if body.seed is None:
        return [options] * (body.n or 1)
    return [{**options, "seed": (body.seed + i) % (LARGEST_SEED + 1)} for i in range(body.n or 1)]


def _grammar(service: Service, body: Sampling) -> str | None:
    """Return the grammar asked for; an empty one asks for none.

    Raises:
        Refusal: nothing bounds what it costs, and the operator does not trust clients with it.
    """
    forms = ("grammar", "json_schema", "choice")
    asked = [name for name in forms if getattr(body, name) not in (None, "")]
    if len(asked) > 1:
        raise Refusal(
            400, f"{asked[0]} and {asked[1]} exclude each other: give one", param=asked[0]
        )
    if body.choice is not None:
        return text_grammar(body.choice)
    if body.grammar and not service.limits.any_grammar:
        try:
            check_grammar(body.grammar)
        except OptionError as error:
            raise Refusal(400, str(error), param="grammar") from error
    return body.grammar or None


def _adapter(service: Service, body: Sampling) -> dict[str, Any]:
    """Return the adapter that the model's name or ``lora`` chooses, and how strongly it applies."""
    name = service.adapter_of(body.model)
    chosen = [(adapter.id, adapter.scale) for adapter in body.lora or () if adapter.scale]
    if not chosen:
        return {"adapter": name}
    known = service.runner.adapters
    if len(chosen) > 1 or chosen[0][0] >= len(known):
        raise Refusal(
            400,
            f"lora: one adapter can be applied at a time, of {len(known)} that the server has "
            "(/lora-adapters lists them)",
            param="lora",
        )
    return {"adapter": known[chosen[0][0]], "adapter_scale": chosen[0][1]}


def _logit_bias(
    runner: Runner, bias: dict[str, Any] | list[list[Any]] | None
) -> dict[int, float] | None:
    """Return the bias of token ids; a key that is no number is a text, as llama.cpp has it."""
    if not bias:
        return None
    pairs: Iterable[Sequence[Any]] = bias.items() if isinstance(bias, dict) else bias
    found: dict[int, float] = {}
    for key, value in pairs:
        tokens = _tokens(runner, key)
        if not tokens or isinstance(value, str):
            raise Refusal(
                400,
                f"logit_bias: {key!r:.60}: {value!r:.60}: give a token id or a text, and a "
                "number or false",
                param="logit_bias",
            )
        found |= dict.fromkeys(tokens, -math.inf if value is False else float(value))
    return found


def _tokens(runner: Runner, key: Any) -> list[int]:
    if isinstance(key, str) and not (key.isascii() and key.isdigit()):
        return runner.tokens.encode(key, bos=False)
    too_long = isinstance(key, str) and len(key) > 10  # digits, of more than any vocabulary has
    return [] if too_long or isinstance(key, bool | float) else [int(key)]
