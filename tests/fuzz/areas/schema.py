"""JSON schemas, and grammars as clients write them, to the converter and the sampler."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.fuzz.areas import gguf
from tests.fuzz.mutation import TEXTS, any_json

PATTERNS = (
    "^(a+)+$", "(a*)*", "^((((((a))))))$", "(" * 300 + "a" + ")" * 300, "^[a-z]{1,2000}$", "(",
    "^(a|b|c|d){0,1999}$", "[", "\\", "^a{2,1}$", "^\\d+$", "^[^]$", "^[]]$", "^a{,3}$", "",
    "^(?=x)y$", "^\\p{L}$", "^\\bx$", "^(?:a|(?:b|(?:c)))$", "^.{1999}.{1999}$", "a", "^$",
    "^\\u0041$", "^(a{100}){100}$", "^((a{1000}){1000}){1000}$", "^[\\s\\S]*$", "^x*?$", "^\n$",
    "^(a?){1999}$", '^"$', "^\x00$", "^{$", "^a{999999999999}$", "^é{0,3}$", "^a{0x10}$", "^|$",
    '^([^"\\\\]|\\\\.)*$', "^(|a)+$", "^()*$", "^(()())*$", "^a**$", "^a++$", "^a{1e9}$",
    "^((a|b|ab)?(a|b|ab)?){60}$", "^(a{1,50}){1,50}$", "^(.*a){12}$",
)  # fmt: skip
GRAMMARS = (
    'root ::= "a"*', 'root ::= ("a" | "b")+ "c"', 'root ::= x\nx ::= [a-z]{1,9} | "é"',
    'root ::= "[" (v ("," v)*)? "]"\nv ::= "1" | root', "root ::= .*", 'root ::= "a" root | ""',
)  # fmt: skip
PIECES = (*'()[]{}|"\\.^-\n ', "::=", "root", "x", "{2,1}", "{99999}", "\\x", "\\u12",
          "\ud800", "🙂", "\x00", "#", "[^", "<[1]>", "!<[2]>", "*", "+", "?", " | ", "{3}",
          "{0,40}", "(root)", '"a"', "[a-z]")  # fmt: skip
prepare = gguf.prepare


def any_schema(draw: random.Random, depth: int = 0) -> Any:
    """Return a schema, sound or not."""
    if depth > 5 or draw.random() < 0.2:
        return draw.choice([
            {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "null"}, {}, True,
            {"type": "boolean"},
            {"const": draw.choice([1, "x", None, TEXTS[3], [1], {"a": 1}, 1e300])},
        ])  # fmt: skip
    return draw.choice(KINDS)(draw, lambda: any_schema(draw, depth + 1))


def _object(draw: random.Random, inner: Any) -> Any:
    names = [*TEXTS, "a", "b", "c-d", "root", "char", "string", "ws", "space", "value"]
    return {
        "type": "object",
        "properties": {draw.choice(names): inner() for _ in range(draw.randrange(4))},
        "required": draw.choice([[], ["a"], ["zz"], None, 3, "a"]),
        "additionalProperties": draw.choice([True, False, inner(), None, 3]),
    }


def _array(draw: random.Random, inner: Any) -> Any:
    low = draw.choice([0, 1, 5, -1, 1999, 2000, 2001, 2**31, 2**64, "1", None, 1.5])
    high = draw.choice([0, 1, 3, 2000, 10**9, None, -1])
    prefix = {"prefixItems": [inner() for _ in range(draw.randrange(5))]}
    items = {"items": draw.choice([False, True, inner()])}
    return draw.choice([{"type": "array", "items": inner(), "minItems": low, "maxItems": high},
                        {"type": "array", **prefix, **items}])  # fmt: skip


def _reference(draw: random.Random, inner: Any) -> Any:
    to = ["#", "#/$defs/a", "#/definitions/a", "#/$defs/zz", "http://127.0.0.1:9/x", "", None,
          "file:///etc/passwd", "#/properties/a", "#/$defs/a/b", 3]  # fmt: skip
    loops = [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}, {"allOf": [{"$ref": "#/$defs/a"}]},
             {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]},
             {"type": "array", "items": {"$ref": "#/$defs/a"}}]  # fmt: skip
    definitions = {"a": draw.choice(loops), "b": {"$ref": "#/$defs/a"}}
    bomb: Any = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 8} for i in range(30)}
    bomb["d30"] = {"type": "null"}
    return draw.choice([{"$ref": draw.choice(to)}, {"$defs": definitions, "$ref": "#/$defs/a"},
                        {"$defs": bomb, "$ref": "#/$defs/d0"}])  # fmt: skip


def _several(draw: random.Random, inner: Any) -> Any:
    objects = [{"properties": {"a": inner()}}, {"properties": {"a": inner()}}, {"$ref": "#"}]
    parts = [[], [inner()], [inner(), inner()], [inner() for _ in range(6)], None, {}, inner(),
             objects]  # fmt: skip
    return {draw.choice(["anyOf", "oneOf", "allOf"]): draw.choice(parts)}


def _enum(draw: random.Random, inner: Any) -> Any:
    values = [[], [1, "a", None], ["x" * 1000] * 50, [str(i) for i in range(3000)], None, {}, "abc",
              list(TEXTS), [[1], {"a": 2}], [1e300]]  # fmt: skip
    return {"enum": draw.choice(values)}


def _string(draw: random.Random, inner: Any) -> Any:
    low, high = [0, 1, 1999, 2001, -1, 2**63, None, "1"], [0, 1, 1999, 2000, -5, None, 10**12]
    formats = ["date", "time", "date-time", "uuid", "email", "uuid1", "../x", "", 3, None]
    pattern = "^" + "".join(draw.choice(PATTERNS).strip("^$") for _ in range(2)) + "$"
    return {"type": "string"} | draw.choice([
        {"pattern": draw.choice(PATTERNS)}, {"pattern": pattern}, {"format": draw.choice(formats)},
        {"minLength": draw.choice(low), "maxLength": draw.choice(high)},
    ])  # fmt: skip


def _integer(draw: random.Random, inner: Any) -> Any:
    low = [0, -5, 2**63, -(2**200), 1.5, "1", None, 1e308]
    high = [0, 7, 10**50, -1, True, None, -(10**40), 10**4000]
    key = draw.choice(["maximum", "exclusiveMaximum"])
    return {"type": "integer", "minimum": draw.choice(low), key: draw.choice(high)}


def _type(draw: random.Random, inner: Any) -> Any:
    types = ["object", ["string", "null"], [], "foo", None, 3, ["foo"], {"a": 1}, "array"]
    return {"type": draw.choice(types), "nullable": True}


def _deep(draw: random.Random, inner: Any) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(draw.choice([5, 50, 300])):
        holder = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
        schema = draw.choice([{"type": "array", "items": schema}, {"anyOf": [schema]}, holder])
    return schema


def _wide(draw: random.Random, inner: Any) -> Any:
    return {"properties": {f"k{i}": {"type": "string"} for i in range(draw.choice([5, 60, 300]))}}


def _nonsense(draw: random.Random, inner: Any) -> Any:
    return any_json(draw)


KINDS = (_object, _object, _array, _array, _reference, _several, _several, _enum, _string, _string,
         _string, _integer, _type, _deep, _wide, _nonsense)  # fmt: skip


def _grammar(draw: random.Random) -> str:
    text = draw.choice(GRAMMARS)
    for _ in range(draw.choice([1, 2, 4])):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(PIECES) + text[at + draw.randrange(3) :]
    return text


def make(draw: random.Random, base: Path, folder: Path) -> str:
    """Write a schema, tools with schemas, or a grammar."""
    kind = draw.choice(["schema", "schema", "tools", "grammar"])
    schema: Any = any_schema(draw)
    if not isinstance(schema, dict):
        schema = {"type": "array", "items": schema}
    value = _grammar(draw) if kind == "grammar" else schema
    (folder / "case.json").write_text(json.dumps({"kind": kind, "value": value}))
    return kind


def check(base: Path, folder: Path) -> str:
    """Let a model follow it for a few tokens."""
    from lfm2gguf import Runner
    from lfm2gguf.llamacpp import check_grammar

    case = json.loads((folder / "case.json").read_text())
    if not _runners:
        model = base / "F32.gguf"
        _runners.append(Runner(model, context=256, parallel=1, threads=1, device="cpu"))
    lfm, value = _runners[0], case["value"]
    if case["kind"] == "tools":
        tool = {"type": "function", "function": {"name": "f", "parameters": value}}
        lfm.chat("x", tools=[tool], tool_choice="required", max_tokens=12, seed=1)
    elif case["kind"] == "schema":
        lfm.complete("x", json_schema=value, max_tokens=12, seed=1)
    else:
        check_grammar(value)  # as the server does
        lfm.complete("x", grammar=value, max_tokens=12, seed=1)
    return "ok"


_runners: list[Any] = []
