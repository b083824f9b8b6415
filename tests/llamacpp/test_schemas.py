"""Answers under random JSON schemas, parsed and validated by jsonschema."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Model, Sampler, json_schema_grammar
from lfm2gguf.options import Options
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


NODE = {
    "type": "object",
    "properties": {
        "v": {"enum": [1, 2]},
        "next": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]},
    },
    "required": ["v", "next"],
    "additionalProperties": False,
}
REFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"$ref": "#/$defs/N", "$defs": {"N": NODE}}, '{"v":1,"next":{"v":2,"next":null}}'),
    ({"type": "array", "items": {"$ref": "#"}, "maxItems": 2}, "[[],[[]]]"),
    ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"const": 1}, "a-b-c": {"const": 2}}}, "1"),
    ({"prefixItems": [{"$ref": "#/$defs/a b"}, {"$ref": "#/$defs/a-b"}], "type": "array",
      "$defs": {"a b": {"const": 1}, "a-b": {"const": 2}}}, "[1,2]"),
    ({"$ref": "#name", "$defs": {"x": {"$anchor": "name", "type": "null"}}}, "null"),
    ({"const": {"$ref": "#/nowhere"}}, '{"$ref": "#/nowhere"}'),
    ({"properties": {"$ref": {"type": "null"}}, "required": ["$ref"]}, '{"$ref":null}'),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "example"), REFERENCES)
def test_references(model: Model, schema: dict[str, Any], example: str) -> None:
    jsonschema.validate(json.loads(example), schema)
    assert follows(model, json_schema_grammar(schema), example)


def levels(part: Any, last: Any) -> dict[str, Any]:
    """A chain of 25 definitions, each made of the next."""
    chain = {f"a{i}": part({"$ref": f"#/$defs/a{i + 1}"}, i) for i in range(25)}
    return {"$ref": "#/$defs/a0", "$defs": {**chain, "a25": last}}


YES = {"type": "boolean"}
LARGE: list[dict[str, Any]] = [
    {"enum": [f"{i * 7919 % 100_003} and more" for i in range(20_000)]},
    {"anyOf": [{"properties": {f"k{i}": YES}, "required": [f"k{i}"]} for i in range(1_500)]},
    levels(lambda ref, i: {"type": "array", "prefixItems": [ref, ref]}, YES),
    levels(lambda ref, i: {"anyOf": [ref, ref]}, YES),
    {"type": "array", "items": YES, "maxItems": 2_000},
    {"type": "array", "items": YES, "minItems": 2_000},
    {"type": "string", "minLength": 1, "maxLength": 2_000},
]


@pytest.mark.parametrize("schema", LARGE)
def test_large_schemas_are_followed_soon(model: Model, schema: dict[str, Any]) -> None:
    began = time.process_time()
    sampler = Sampler(model, Options(json_schema=schema, temperature=1.0, seed=1))
    logits = np.zeros(model.n_vocab, np.float32)
    for _ in range(5):
        sampler.sample(logits)
    sampler.close()
    assert time.process_time() - began < 2.5  # was up to forty; here each takes 0.3 s at most


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "leads to itself"),
        ({"$ref": "#/$defs/b", "$defs": {}}, "leads nowhere"),
        ({"$ref": "https://example.org/schema.json"}, "leads out of the schema"),
        (levels(lambda ref, i: {"anyOf": [ref, {"anyOf": [ref, {"const": i}]}]}, YES), "ways"),
        ({"type": "integer", "minimum": 10**4000}, "minimum has more than 100 digits"),
        ({"type": "integer", "minimum": -(10**5000)}, "thousands of digits"),
        ({"type": "integer", "maximum": float("inf")}, "maximum must be a finite number"),
        ({"type": "integer", "maximum": "5"}, "maximum must be a finite number, and is '5'"),
        ({"type": "integer", "exclusiveMinimum": True}, "exclusiveMinimum must be"),
        (json.loads('{"items":' * 400 + "{}" + "}" * 400), "nests too deep"),
        ({"type": "string", "enum": [1, 2]}, "no value fits"),
        ({"enum": [1, 2], "const": 3}, "no value fits"),
        ({"type": "object", "properties": {f"p{i}": {} for i in range(30_000)}}, "parts"),
    ],
)
def test_what_is_refused_says_why(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        json_schema_grammar(schema)


@given(texts=st.lists(st.text(max_size=6), min_size=1, max_size=12), other=st.text(max_size=6))
@settings(max_examples=50, deadline=None)
def test_an_enum_is_its_values(model: Model, texts: list[str], other: str) -> None:
    """Also where one begins with another."""
    writable = [text for text in texts if text.isprintable()]
    if not writable:
        return
    grammar = json_schema_grammar({"enum": writable})
    for text in writable:
        assert follows(model, grammar, json.dumps(text, ensure_ascii=False))
    if other.isprintable() and other not in writable:
        assert not follows(model, grammar, json.dumps(other, ensure_ascii=False))
