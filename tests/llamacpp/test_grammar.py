"""Grammars made of JSON schemas, held against llama.cpp's sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Model, Sampler, json_schema_grammar
from lfm2gguf.options import Options
from tests.llamacpp.test_llamacpp import GREEDY
from tests.making.models import tiny_gguf


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(tiny_gguf()) as loaded:
        yield loaded


def follows(model: Model, grammar: str, text: str) -> bool:
    """Whether the sampler, wanting nothing so much as this text and its end, may write it."""
    sampler = Sampler(model, Options(**GREEDY, grammar=grammar))
    end = next(t for t in range(model.n_vocab) if model.ends_generation(t))
    wanted = [token for character in text for token in model.tokenize(character)]
    try:
        for token in [*wanted, end]:
            logits = np.zeros(model.n_vocab, np.float32)
            logits[token] = 9.0
            if sampler.sample(logits) != token:
                return False
        return True
    finally:
        sampler.close()


BOUND = st.one_of(st.none(), st.integers(-1200, 1200), st.integers(-(10**9), 10**9))


@given(low=BOUND, high=BOUND, offset=st.integers(-30, 30), from_high=st.booleans())
def test_integers_keep_their_bounds(
    model: Model, low: int | None, high: int | None, offset: int, from_high: bool
) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    schema |= {"minimum": low} if low is not None else {}
    schema |= {"maximum": high} if high is not None else {}
    if low is not None and high is not None and low > high:
        with pytest.raises(OptionError, match="there is no integer"):
            json_schema_grammar(schema)
        return
    near = high if from_high else low
    value = (near or 0) + offset
    inside = (low is None or value >= low) and (high is None or value <= high)
    assert follows(model, json_schema_grammar(schema), str(value)) is inside


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"exclusiveMinimum": 0}, ["1", "10", "99999"], ["0", "-1", "00", "01", "-0"]),
        ({"exclusiveMaximum": 10, "minimum": 0}, ["0", "9"], ["10", "-1", "007"]),
        ({"minimum": 0.5, "maximum": 2.5}, ["1", "2"], ["0", "3", "1.5"]),
        ({"minimum": -5, "maximum": -5}, ["-5"], ["5", "-50", "-4"]),
        ({"minimum": 18, "maximum": 130}, ["18", "99", "100", "130"], ["17", "131", "1", "200"]),
    ],
)
def test_bounds_of_every_kind(
    model: Model, bounds: dict[str, Any], inside: list[str], outside: list[str]
) -> None:
    grammar = json_schema_grammar({"type": "integer", **bounds})
    assert all(follows(model, grammar, text) for text in inside)
    assert not any(follows(model, grammar, text) for text in outside)


def test_bounds_within_other_schemas(model: Model) -> None:
    age = {"type": ["integer", "null"], "minimum": 0, "maximum": 150}
    grammar = json_schema_grammar(
        {"type": "object", "properties": {"age": age}, "required": ["age"]}
    )
    for text, allowed in [("40", True), ("null", True), ("151", False), ("-1", False)]:
        assert follows(model, grammar, f'{{"age":{text}}}') is allowed
    one_of = json_schema_grammar({"type": "integer", "enum": [3, 7], "minimum": 5})
    assert follows(model, one_of, "7")


def test_bounds_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(OptionError, match="cannot be turned into a grammar"):
        json_schema_grammar({"type": "integer", "minimum": "5"})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10**8},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10**7},
        {"type": "string", "pattern": "^a{1,3000000}$"},
        {"type": "object", "properties": {f"x{i}": {"type": "string", "maxLength": 1900}
                                          for i in range(20)}},
    ],
)  # fmt: skip
def test_what_would_take_gigabytes_is_refused_at_once(schema: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="can be had"):
        json_schema_grammar(schema)


def test_what_is_no_text_is_refused(model: Model) -> None:
    with pytest.raises(OptionError, match="cannot express"):
        Sampler(model, Options(**GREEDY, grammar='root ::= "\ud800"'))
    grammar = json_schema_grammar({"type": "string", "pattern": "^[a-c]{2,30}$"})
    assert follows(model, grammar, '"abc"')
