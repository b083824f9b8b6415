"""The options of an answer, each with its kind, range and meaning: one table for all readers.

:class:`Options` checks values against it, the server's request model and the command line take
ranges and descriptions from it. Plain data, so that ``--help`` can read it without NumPy.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypedDict, get_args, get_origin, get_type_hints

from lfm2gguf.errors import OptionError
from lfm2gguf.numeric import is_number, is_whole

LARGEST_SEED = 2**32 - 2  # the next, LLAMA_DEFAULT_SEED, has llama.cpp draw one of its own
LARGEST_INT = 2**31 - 1  # int32_t, which llama.cpp's samplers take


class Range(NamedTuple):
    """The smallest and the largest value of an option."""

    low: float
    high: float


class Doc(NamedTuple):
    """What an option does, in a sentence or two."""

    text: str


Bias = Mapping[int, float]
Texts = str | Sequence[str]
TokenIds = Sequence[int]
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """Options of one request; the ``Doc`` of each field says what it does."""

    max_tokens: Annotated[
        int | None,
        Range(0, 2**31),
        Doc(
            "Most tokens of an answer; without it, until the model or the context ends it. "
            "0: the prompt alone is computed."
        ),
    ] = None
    temperature: Annotated[
        float,
        Range(0, 100),
        Doc("How freely tokens are drawn; 0 always takes the likeliest."),
    ] = 0.8
    top_k: Annotated[
        int, Range(0, LARGEST_INT), Doc("Draw among the K likeliest tokens; 0 is off.")
    ] = 40
    top_p: Annotated[
        float,
        Range(0, 1),
        Doc("Draw among the likeliest tokens that together have this probability; 1 is off."),
    ] = 0.95
    min_p: Annotated[
        float,
        Range(0, 1),
        Doc("Leave out tokens below this part of the likeliest one's probability; 0 is off."),
    ] = 0.05
    top_n_sigma: Annotated[
        float,
        Range(-1, 1000),
        Doc("Leave out logits further than N standard deviations below the largest; -1 is off."),
    ] = -1.0
    typical_p: Annotated[
        float,
        Range(0, 1),
        Doc("Draw among the tokens of the most typical surprise up to this probability; 1 is off."),
    ] = 1.0
    xtc_probability: Annotated[
        float, Range(0, 1), Doc("How often all likely tokens but the last are left out (XTC).")
    ] = 0.0
    xtc_threshold: Annotated[
        float, Range(0, 1), Doc("From which probability on a token is likely, for XTC.")
    ] = 0.1
    dynatemp_range: Annotated[
        float,
        Range(0, 100),
        Doc("How far the temperature moves up and down with the entropy; 0 is off."),
    ] = 0.0
    dynatemp_exponent: Annotated[
        float, Range(0, 100), Doc("How the temperature follows the entropy.")
    ] = 1.0
    repeat_penalty: Annotated[
        float,
        Range(0.01, 100),
        Doc("Divides the logits of tokens in the repeat window; 1 is off."),
    ] = 1.0
    repeat_window: Annotated[
        int,
        Range(-1, 2**20),
        Doc("Tokens of prompt and answer that the three penalties look at; -1: all of them."),
    ] = 64
    frequency_penalty: Annotated[
        float,
        Range(-2, 2),
        Doc("Subtracted from a token's logit for each time it occurs in the repeat window."),
    ] = 0.0
    presence_penalty: Annotated[
        float,
        Range(-2, 2),
        Doc("Subtracted once from the logit of a token that occurs in the repeat window."),
    ] = 0.0
    seed: Annotated[
        int | None,
        Range(0, LARGEST_SEED),
        Doc("Seed of the draws; without it a new one is drawn, which the reply reports."),
    ] = None
    logit_bias: Annotated[
        Bias | None, Doc("Numbers added to the logits of token ids; -inf forbids a token.")
    ] = None
    stop: Annotated[Texts, Doc("A string before which the answer ends, or several.")] = ()
    logprobs: Annotated[
        int | None,
        Range(0, 100),
        Doc(
            "Report the chosen token and the N likeliest at each step (0: the chosen alone), "
            "from the model's own distribution, before any sampler."
        ),
    ] = None
    prompt_logprobs: Annotated[
        int | None,
        Range(0, 100),
        Doc(
            "Report the same of each token of the prompt but the first, and the token that ends "
            "the answer as well. All of the prompt is computed anew."
        ),
    ] = None
    grammar: Annotated[
        str | None, Doc("GBNF with the start symbol root, which the answer follows.")
    ] = None
    json_schema: Annotated[Schema | None, Doc("A JSON schema that the answer fits.")] = None
    adapter: Annotated[
        str | None,
        Doc("Name of a LoRA adapter the model was opened with; without it, the model itself."),
    ] = None
    adapter_scale: Annotated[float, Range(-100, 100), Doc("How strongly the adapter applies.")] = (
        1.0
    )
    ignore_eos: Annotated[
        bool, Doc("Go on to max_tokens even where the model would end: for measuring.")
    ] = False
    min_tokens: Annotated[
        int, Range(0, 2**31), Doc("Tokens before which the model does not end the answer.")
    ] = 0
    stop_tokens: Annotated[
        TokenIds, Doc("Token ids that end the answer, besides the model's own.")
    ] = ()

    def __post_init__(self) -> None:
        for option in option_table().values():
            option.check(getattr(self, option.name))
        if self.grammar is not None and self.json_schema is not None:
            raise OptionError("grammar and json_schema: give one of them, not both")
        if self.grammar is not None and not self.grammar.strip():
            raise OptionError("grammar is empty: give rules, the first of them root ::= ...")
        if "" in self.stops:
            raise OptionError("stop: a stop string must not be empty")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, however they were given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def penalizes(self) -> bool:
        """Whether the repeat window is looked at."""
        penalties = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
        return penalties != (1, 0, 0) and self.repeat_window != 0

    def changed(self, **changes: Any) -> Options:
        """Return a copy with some options replaced.

        Raises:
            OptionError: an option is unknown, or its value of the wrong kind or range.
        """
        if unknown := changes.keys() - option_table().keys():
            known = ", ".join(option_table())
            raise OptionError(f"unknown option {sorted(unknown)[0]!r}; the options are {known}")
        return dataclasses.replace(self, **changes)

    def seeded(self) -> Options:
        """Return these options with a seed that is known."""
        return self if self.seed is not None else self.changed(seed=secrets.randbits(31))


class OptionChanges(TypedDict, total=False):
    """The keyword arguments by which a call changes its model's default options."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    top_n_sigma: float
    typical_p: float
    xtc_probability: float
    xtc_threshold: float
    dynatemp_range: float
    dynatemp_exponent: float
    repeat_penalty: float
    repeat_window: int
    frequency_penalty: float
    presence_penalty: float
    seed: int | None
    logit_bias: Bias | None
    stop: Texts
    logprobs: int | None
    prompt_logprobs: int | None
    grammar: str | None
    json_schema: Schema | None
    adapter: str | None
    adapter_scale: float
    ignore_eos: bool
    min_tokens: int
    stop_tokens: TokenIds


@dataclass(frozen=True)
class Option:
    """A row of the table: one field of :class:`Options`, as its annotation declares it."""

    name: str
    kind: Any  # the type, such as int; without None
    nullable: bool
    range: Range | None
    doc: str

    def check(self, value: Any) -> None:
        """Check a value's kind and range.

        Raises:
            OptionError: the value does not fit.
        """
        if value is None and self.nullable:
            return
        words, fits = _KINDS[self.kind]
        if not fits(value):
            raise OptionError(f"{self.name} is {value!r}: it must be {words}")
        if self.range and not self.range.low <= value <= self.range.high:
            low, high = self.range
            raise OptionError(f"{self.name} is {value!r}: it must lie between {low} and {high}")


@functools.cache
def option_table() -> dict[str, Option]:
    """Return the options by name, in the order of the fields."""
    hints = get_type_hints(Options, include_extras=True)
    return {name: _option(name, *get_args(hint)) for name, hint in hints.items()}


def _option(name: str, hint: Any, *notes: Range | Doc) -> Option:
    nullable = type(None) in get_args(hint) and get_origin(hint) is not None
    kind = get_args(hint)[0] if nullable else hint
    limits = next((note for note in notes if isinstance(note, Range)), None)
    doc = next(note.text for note in notes if isinstance(note, Doc))
    return Option(name, kind, nullable, limits, doc)


def _is_bias(value: Any) -> bool:
    """Tell whether a value gives numbers for token ids; -inf is one of them."""
    return isinstance(value, Mapping) and all(
        is_whole(token) and is_number(x) and x < math.inf for token, x in value.items()
    )


def _are_ids(value: Any) -> bool:
    return isinstance(value, Sequence) and all(is_whole(token) and token >= 0 for token in value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(text, str) for text in value)


_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", is_whole),
    float: ("a number", is_number),
    bool: ("True or False", lambda value: isinstance(value, bool)),
    str: ("a text", lambda value: isinstance(value, str)),
    Bias: ("numbers for token ids", _is_bias),
    Texts: ("a text, or several", _are_texts),
    TokenIds: ("token ids", _are_ids),
    Schema: ("a dict", lambda value: isinstance(value, Mapping)),
}
