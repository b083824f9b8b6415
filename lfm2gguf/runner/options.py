"""How an answer is generated: the options, their checks, and each member's defaults."""

from __future__ import annotations

import dataclasses
import math
import numbers
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from lfm2gguf.errors import OptionError
from lfm2gguf.members import Lookup, member_of

if TYPE_CHECKING:
    from lfm2gguf.llamacpp import Model, Sampler


LARGEST_SEED = 2**32 - 2  # the next, LLAMA_DEFAULT_SEED, has llama.cpp draw one of its own


@dataclass(frozen=True)
class Options:
    """Options of one request.

    ``max_tokens`` None: until the model ends, or the context does. ``temperature`` 0 is greedy.
    ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 are off. ``repeat_penalty`` (1 is off) looks at the last
    ``repeat_window`` tokens of prompt and answer; -1: at all of them; so do
    ``frequency_penalty`` and ``presence_penalty``, subtracted from the logit of a token for each
    time, and once, that it occurs there. ``seed`` None draws a new one, which the reply reports.
    ``logit_bias`` is added to the logits of token ids; ``stop`` ends the answer before the
    string. ``logprobs`` N reports the N likeliest tokens at each step (0:
    the chosen alone), from the model's own distribution, before any sampler.
    ``grammar`` is GBNF, its start symbol ``root``; ``json_schema`` is turned into one.
    ``adapter`` names a LoRA adapter the model was opened with (None: the model itself), applied
    ``adapter_scale`` times. ``ignore_eos`` goes on to ``max_tokens`` whatever the model wants:
    for measuring.
    """

    max_tokens: int | None = None
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_window: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] | None = None
    stop: str | Sequence[str] = ()
    logprobs: int | None = None
    grammar: str | None = None
    json_schema: Mapping[str, Any] | None = None
    adapter: str | None = None
    adapter_scale: float = 1.0
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name, (kind, fits) in _KINDS.items():
            if not fits(getattr(self, name)):
                raise OptionError(f"{name} is {getattr(self, name)!r}: it must be {kind}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(f"{name} is {value!r}: it must lie between {low} and {high}")
        if self.grammar is not None and self.json_schema is not None:
            raise OptionError("give a grammar or a json_schema, not both")
        if self.grammar is not None and not self.grammar.strip():
            raise OptionError("the grammar is empty: give rules, the first of them root ::= ...")
        if "" in self.stops:
            raise OptionError("a stop string must not be empty")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, however they were given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def changed(self, **changes: Any) -> Options:
        """Return a copy with some options replaced. Raises :class:`OptionError` on unknown ones."""
        unknown = changes.keys() - {field.name for field in dataclasses.fields(self)}
        if unknown:
            known = ", ".join(field.name for field in dataclasses.fields(self))
            raise OptionError(f"unknown option {sorted(unknown)[0]!r}; the options are {known}")
        return dataclasses.replace(self, **changes)

    def seeded(self) -> Options:
        """Return these options with a seed that is known."""
        return self if self.seed is not None else self.changed(seed=secrets.randbits(31))

    def sampler(self, model: Model) -> Sampler:
        """Make the sampler chain of one request."""
        from lfm2gguf.llamacpp import Sampler, json_schema_grammar

        bias = dict(self.logit_bias or {})
        wrong = [token for token in bias if not 0 <= token < model.n_vocab]
        if wrong:
            raise OptionError(f"logit_bias: {wrong[0]} is no token id below {model.n_vocab}")
        if self.ignore_eos:
            bias |= dict.fromkeys(model.end_tokens, -math.inf)
        grammar = self.grammar
        if self.json_schema is not None:
            grammar = json_schema_grammar(dict(self.json_schema))
        return Sampler(
            model,
            temperature=float(self.temperature),
            top_k=int(self.top_k),
            top_p=float(self.top_p),
            min_p=float(self.min_p),
            repeat_penalty=self.repeat_penalty,
            repeat_window=model.n_ctx_train if self.repeat_window < 0 else int(self.repeat_window),
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            seed=int(self.seed or 0),
            logit_bias=bias,
            grammar=grammar,
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_bias(value: Any) -> bool:
    """Numbers for token ids; -inf forbids a token."""
    return isinstance(value, Mapping) and all(
        _is_whole(token) and _is_number(x) and x < math.inf for token, x in value.items()
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(text, str) for text in value)


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


_WHOLE, _NUMBER = ("a whole number", _is_whole), ("a number", _is_number)
_TEXT = ("a text", _or_none(lambda value: isinstance(value, str)))
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("top_k", "repeat_window"), _WHOLE),
    **dict.fromkeys(("max_tokens", "seed", "logprobs"), ("a whole number", _or_none(_is_whole))),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repeat_penalty", "adapter_scale"), _NUMBER),
    **dict.fromkeys(("frequency_penalty", "presence_penalty"), _NUMBER),
    **dict.fromkeys(("grammar", "adapter"), _TEXT),
    "logit_bias": ("numbers for token ids", _or_none(_is_bias)),
    "stop": ("a text, or several", _are_texts),
    "json_schema": ("a dict", _or_none(lambda value: isinstance(value, Mapping))),
}

_RANGES = {
    "max_tokens": (1, 2**31),
    "temperature": (0, 100),
    "top_k": (0, 2**31),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0.01, 100),
    "repeat_window": (-1, 2**20),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "seed": (0, LARGEST_SEED),
    "logprobs": (0, 100),
    "adapter_scale": (-100, 100),
}


class OptionChanges(TypedDict, total=False):
    """The keyword arguments by which a call changes its model's default options."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    repeat_window: int
    frequency_penalty: float
    presence_penalty: float
    seed: int | None
    logit_bias: Mapping[int, float] | None
    stop: str | Sequence[str]
    logprobs: int | None
    grammar: str | None
    json_schema: Mapping[str, Any] | None
    adapter: str | None
    adapter_scale: float
    ignore_eos: bool


# general.sampling.* (gguf-py/gguf/constants.py, Keys.General): llama.cpp's names for ours
_KEYS = {
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "penalty_repeat": ("repeat_penalty", float),
    "penalty_last_n": ("repeat_window", int),
}


def default_options(metadata: Lookup) -> Options:
    """Return a model's own sampling options.

    The card's recommendation for the member, and over it whatever the file itself says under
    ``general.sampling.*``.
    """
    given = {
        option: read(round(float(str(value)), 6))  # float32 in the file
        for key, (option, read) in _KEYS.items()
        if (value := metadata.get(f"general.sampling.{key}", None)) is not None
    }
    return Options(**{**member_of(metadata).sampling, **given})
