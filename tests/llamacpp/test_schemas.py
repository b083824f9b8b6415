"""Answers under random JSON schemas, parsed and validated by jsonschema."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Model, json_schema_grammar
from tests.llamacpp.test_grammar import follows
from tests.making.gbnf import Grammar
from tests.making.models import tiny_gguf

Schema = dict[str, Any] | bool

SCALARS: list[Schema] = [
    {}, True, {"type": "null"}, {"type": "boolean"}, {"type": "integer"}, {"type": "number"},
    {"type": "integer", "minimum": -3, "exclusiveMaximum": 120}, {"type": "string"},
    {"type": "string", "minLength": 2, "maxLength": 5}, {"type": "string", "minLength": 1},
    {"type": "string", "pattern": r"^[\"\\\n]+$"}, {"type": "string", "pattern": "[a-c]\\d"},
    {"pattern": r"\S", "maxLength": 4}, {"type": ["string", "null"], "pattern": "^x?$"},
    {"const": 'a"\\\n\u00e9'}, {"enum": [1, "x", None, {"a": [1.5]}]}, {"type": "object"},
    {"type": "array"}, {"type": "string", "format": "date"}, {"type": "string", "format": "uuid"},
]  # fmt: skip
NAMES = st.sampled_from(
    ["name", "string", "value", "space", "root", "after-less", 'a"\\b', "é", "-"]
)


@st.composite
def arrays(draw: st.DrawFn, parts: st.SearchStrategy[Schema]) -> Schema:
    schema: dict[str, Any] = {"type": "array"}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(parts, min_size=1, max_size=3))
    if draw(st.booleans()):
        schema["items"] = draw(st.one_of(parts, st.booleans()))
    if draw(st.booleans()):
        schema["minItems"] = draw(st.integers(0, 4))
    if draw(st.booleans()):
        schema["maxItems"] = draw(st.integers(0, 6))
    return schema


@st.composite
def objects(draw: st.DrawFn, parts: st.SearchStrategy[Schema]) -> Schema:
    properties = draw(st.dictionaries(NAMES, parts, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema["required"] = [name for name in properties if draw(st.booleans())]
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(st.one_of(st.booleans(), parts))
    return schema


def grown(parts: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    union: st.SearchStrategy[Schema] = st.lists(
        st.one_of(parts, st.just(False)), min_size=1, max_size=3
    ).map(lambda some: {"anyOf": some})
    return st.one_of(arrays(parts), objects(parts), union)


SCHEMAS = st.recursive(st.sampled_from(SCALARS), grown, max_leaves=6)


@settings(max_examples=100, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_answers_are_valid(schema: Schema, seed: int) -> None:
    if isinstance(schema, bool):
        schema = {}
    try:
        grammar = Grammar(json_schema_grammar(schema))
    except OptionError as error:
        if not re.search("no value fits|no array holds", str(error)):
            raise
        return
    draw = random.Random(seed)
    for size in (5, 40, 200):
        jsonschema.validate(json.loads(grammar.draw(draw, size)), schema)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(tiny_gguf()) as loaded:
        yield loaded


LISTS: list[tuple[dict[str, Any], str]] = [
    ({"items": {}}, '[1,"x"]'),
    ({"items": True}, "[[]]"),
    ({"items": False}, "[]"),
    ({"prefixItems": [True, {"type": "null"}]}, "[1,null]"),
    ({"prefixItems": [{"type": "null"}], "items": {"type": "boolean"}, "minItems": 3},
     "[null,true,true]"),
    ({"items": [{"type": "null"}], "additionalItems": {"type": "boolean"}}, "[null,true]"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "example"), LISTS)
def test_forms_of_lists(model: Model, schema: dict[str, Any], example: str) -> None:
    assert follows(model, json_schema_grammar({"type": "array", **schema}), example)


@pytest.mark.parametrize("schema", [{"anyOf": []}, {"anyOf": [False]}, {"enum": []},
                                    {"type": "array", "minItems": 3, "maxItems": 2}])  # fmt: skip
def test_what_no_value_fits_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        json_schema_grammar(schema)
