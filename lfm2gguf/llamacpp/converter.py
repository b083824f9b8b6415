"""llama-cpp-python's converter from JSON schemas to GBNF, put right."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from lfm2gguf.llamacpp.automaton import Budget, pattern_rules
from lfm2gguf.llamacpp.bindings import bindings
from lfm2gguf.llamacpp.choices import (
    MOST_WRITTEN_OUT,
    choice_rules,
    literal,
    repeated,
    texts_of,
)
from lfm2gguf.llamacpp.integers import integer_bounds, integers_between
from lfm2gguf.llamacpp.keys import COMMA, object_rules, other_keys

Schema = Mapping[str, Any]

MOST_WAYS = 5_000  # that a grammar's sampler follows side by side
MOST_PARTS = 20_000  # of a schema, those of each reference counted once

# What says something of a value; a schema with none of it allows any (JSON Schema, 4.3.2).
_SAYS = {
    "type", "$ref", "oneOf", "anyOf", "allOf", "const", "enum", "properties",
    "additionalProperties", "items", "prefixItems", "pattern", "format",
}  # fmt: skip


# What the converter looks at before a value's type, and what says something of arrays.
_FIRST = {"$ref", "oneOf", "anyOf", "allOf", "const", "enum", "properties"}
_ITEMS = {"items", "prefixItems"}
_CHOICES = {"enum", "const"}
_BEFORE_CHOICES = {"$ref", "oneOf", "anyOf", "allOf"}
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "array": (list,), "object": (dict,), "null": (type(None),),
}  # fmt: skip
_OF_ARRAYS = {*_ITEMS, "minItems", "maxItems"}

# Strings without control characters, and without "<|": no marker, such as the end of a call, may
# come up inside of a value. What is left out can be written as an escape. No escape
# is half of a surrogate pair: many parsers refuse one by itself.
_ESCAPE = (
    r'"\\" (["\\/bfnrt] | "u" ([0-9a-cA-CefEF] [0-9a-fA-F] | [dD] [0-7]) [0-9a-fA-F] [0-9a-fA-F])'
)
_STRINGS = {
    "char": (rf'[^\x00-\x1F"\\<] | {_ESCAPE}', []),
    "after-less": (rf'[^\x00-\x1F"\\<|] | {_ESCAPE}', []),
    "string": (r'"\"" (char | "<"+ after-less)* "<"* "\"" space', ["char", "after-less"]),
}


def _has_kind(value: Any, kind: Any) -> bool:
    """Say whether a value is of a schema's type, or one of its types."""
    if not isinstance(kind, str | list):
        return True
    kinds = [kind] if isinstance(kind, str) else kind
    if isinstance(value, float) and value.is_integer() and "integer" in kinds:
        return True
    types = tuple(t for name in kinds for t in _KINDS.get(name, ()))
    return isinstance(value, types) and (not isinstance(value, bool) or "boolean" in kinds)


@functools.cache
def converter() -> Any:
    """Return llama-cpp-python's converter (0.3.36, ``llama_grammar.py``), corrected.

    As it stands, strings may hold raw control characters, constants with a backslash come out
    wrong, two schemas' definitions of one name are taken for each other, a schema that says
    nothing allows only objects, other properties follow the named ones without a comma, what is
    required may be left out, integers have no bounds, ``items`` cannot be ``{}`` or follow
    ``prefixItems``, and some patterns are never done with.
    """
    theirs = bindings("llama_grammar")
    build_repetition = vars(theirs)["_build_repetition"]
    own = {name: theirs.BuiltinRule(*rule) for name, rule in _STRINGS.items()}
    primitives = {**theirs.STRING_FORMAT_RULES, **theirs.PRIMITIVE_RULES, **own}

    class Converter(theirs.SchemaConverter):  # type: ignore[misc,name-defined]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self._patterns: dict[tuple[str, int, int | None], str] = {}
            self._budget = Budget()
            self._numbers = itertools.count()
            self._names: dict[str, str] = {}  # of the rules of references
            self._parts = 0
            self._ways: dict[str, int] = {}  # to go on at the beginning of a rule
            self.pythonic = False

        def refer(self, targets: Mapping[str, Any]) -> None:
            self._refs.update(targets)

        def visit(self, schema: Any, name: str) -> str:
            self._parts += 1
            if self._parts > MOST_PARTS:
                raise ValueError(f"it has more than {MOST_PARTS} parts")
            if schema is False:
                raise ValueError("no value fits the schema false")
            if schema is not True and schema.get("enum") == []:
                raise ValueError("no value fits an enum of nothing")
            schema = {} if schema is True else schema
            name = f"{name}-" if name in {*theirs.RESERVED_NAMES, *own} else name
            if schema.get("nullable"):
                rest = {key: value for key, value in schema.items() if key != "nullable"}
                return str(super().visit({"anyOf": [rest, {"type": "null"}]}, name))
            if not schema.keys() & _BEFORE_CHOICES and schema.keys() & _CHOICES:
                return str(self._add_rule(name or "root", f"{self._choice(schema)} space"))
            if isinstance(kinds := schema.get("type"), list):
                parts = [{**schema, "type": kind} for kind in kinds]
                return str(self._add_rule(name or "root", self._generate_union_rule(name, parts)))
            if kinds == "integer":
                bounds = integer_bounds(schema)
                if bounds != (None, None):
                    bounded = f"({integers_between(*bounds)}) space"
                    return str(self._add_rule(name or "root", bounded))
            if kinds == "object" and "required" in schema and "properties" not in schema:
                schema = {"properties": {}, "additionalProperties": True, **schema}
            if own_rule := self._own_rule(schema, name):
                return str(self._add_rule(name or "root", own_rule))
            if not schema.keys() & _SAYS:
                value = self._add_primitive("value", theirs.PRIMITIVE_RULES["value"])
                return str(self._add_rule(name or "root", value))
            made = str(super().visit(schema, name))
            if "$ref" in schema:
                self._ways[made] = self._ways.get(self._names[schema["$ref"]], 1)
            return made

        def _own_rule(self, schema: Schema, name: str) -> str | None:
            kind, keys = schema.get("type"), schema.keys()
            if keys & _FIRST:
                return None
            if (kind == "array" and keys & _OF_ARRAYS) or (kind is None and keys & _ITEMS):
                return self._array(schema, name)
            if kind in (None, "string") and "pattern" in keys:
                return self._string(schema)
            if kind == "string" and "format" not in keys and keys & {"minLength", "maxLength"}:
                self._add_primitive("char", own["char"])
                least, most = schema.get("minLength", 0), schema.get("maxLength")
                return f'"\\"" {self._repeated("char", least, most)} "\\"" space'
            return None

        def _choice(self, schema: Schema) -> str:
            """Return the name of a rule of an enum's values, or of a constant."""
            values = schema["enum"] if "enum" in schema else [schema["const"]]
            if "const" in schema:
                values = [value for value in values if value == schema["const"]]
            values = [value for value in values if _has_kind(value, schema.get("type"))]
            if not values:
                raise ValueError("no value fits the enum, the constant and the type together")
            texts = [t for value in values for t in texts_of(value, pythonic=self.pythonic)]
            start = self._free("choice")
            self._rules |= choice_rules(texts, start)
            return start

        def _repeated(self, item: str, least: int, most: int | None, by: str | None = None) -> str:
            if max(least, most or 0) <= MOST_WRITTEN_OUT:
                return str(build_repetition(item, least, most, by))
            rule, optional = repeated(item, least, most, by)
            return f"{self._add_rule(self._free('list'), rule)}?" if optional else rule

        def _array(self, schema: Schema, name: str) -> str:
            """Return an array's rule; where ``prefixItems`` stand alone, nothing follows them."""
            listed = isinstance(schema.get("items"), list)  # as before draft 2020-12
            first = schema["items"] if listed else schema.get("prefixItems", [])
            rest_key = "additionalItems" if listed else "items"
            rest, least = schema.get(rest_key, True), schema.get("minItems", 0)
            most = schema.get("maxItems", math.inf)
            if rest is False or (first and rest_key not in schema):
                most = min(most, len(first) if rest is False else max(least, len(first)))
            if least > most:
                raise ValueError(f"no array holds {least} items, and {most} at most")
            most = None if most == math.inf else int(most)
            rules = [str(self.visit(part, f"{name}-tuple-{i}")) for i, part in enumerate(first)]
            rules = rules[:most]
            rule, more = f" {COMMA} ".join(rules), None if most is None else most - len(rules)
            if more != 0:
                item, least = str(self.visit(rest, f"{name}-item")), max(least - len(rules), 0)
                several = (
                    (f"({COMMA} {item})", least, more) if rules else (item, least, more, COMMA)
                )
                rule += f" {self._repeated(*several)}"
            return f'"[" space {rule} "]" space'

        def _generate_union_rule(self, name: str, alternatives: list[Any]) -> str:
            possible = [part for part in alternatives if part is not False]
            if not possible:
                raise ValueError("no value fits a choice of nothing")
            start = f"{name}-" if name else "alternative-"
            names = [str(self.visit(part, f"{start}{i}")) for i, part in enumerate(possible)]
            different = list({self._rules.get(rule, rule): rule for rule in names}.values())
            ways = self._ways[name or "root"] = sum(self._ways.get(r, 1) for r in different)
            if ways > MOST_WAYS:
                raise ValueError(f"it leaves more than {MOST_WAYS} ways to go on at one place")
            return " | ".join(different)

        def _build_object_rule(
            self, properties: Any, required: set[str], name: str, additional_properties: Any
        ) -> str:
            rest = additional_properties or None if additional_properties != {} else True
            missing = sorted(required - {key for key, _ in properties})
            if missing and additional_properties is False:
                raise ValueError(f"no value fits: {missing[0]!r} is required and not allowed")
            parts = {**dict(properties), **dict.fromkeys(missing, rest or True)}
            parts = {k: part for k, part in parts.items() if part is not False or k in required}
            pairs = {key: self._pair(f"{name}-{key}", key, part) for key, part in parts.items()}
            extra = None
            if rest:
                value = str(self.visit(rest, f"{name}-additional-value"))
                self._add_primitive("string", primitives["string"])
                keys = self._free("keys")
                self._rules |= other_keys([key for key, _ in properties] + missing, keys)
                extra = str(self._add_rule(f"{name}-additional-kv", f'{keys} ":" space {value}'))
            wanted = [key for key in pairs if key in required]
            rule, more = object_rules(pairs, wanted, extra, self._free("rest"))
            self._rules |= more
            return rule

        def _pair(self, name: str, key: str, schema: Any) -> str:
            rule = self.visit(schema, name)  # never "", the start symbol's
            literal = self._format_literal(json.dumps(key))
            return str(self._add_rule(f"{name}-kv", f'{literal} space ":" space {rule}'))

        def _free(self, start: str) -> str:
            """Return a name that no rule's name begins with: those of properties have a hyphen."""
            return f"{start}{next(self._numbers)}"

        def _string(self, schema: Schema) -> str:
            """Return the name of a rule of strings with a pattern."""
            pattern, least, most = (
                schema["pattern"],
                schema.get("minLength", 0),
                schema.get("maxLength"),
            )
            if (asked := (pattern, least, most)) not in self._patterns:
                start = self._free("pattern")
                self._rules |= pattern_rules(pattern, start, least, most, self._budget)
                self._patterns[asked] = start
            return self._patterns[asked]

        def _format_literal(self, text: str) -> str:
            return literal(json.dumps(json.loads(text), ensure_ascii=False))

        def _resolve_ref(self, ref: str) -> str:
            if ref not in self._names:
                name = f"{self._free('ref')}-{re.sub('[^a-zA-Z0-9]+', '-', ref)}"
                self._names[ref] = name  # before its rule is there: it may refer to itself
                made = str(self.visit(self._refs[ref], name))
                if made != name:
                    self._add_rule(name, made)
                self._ways[name] = self._ways.get(made, 1)
            return self._names[ref]

        def _add_primitive(self, name: str, rule: Any) -> Any:
            rule = own.get(name, rule)
            added = self._add_rule(name, rule.content)
            for part in rule.deps:
                if part not in self._rules:
                    self._add_primitive(part, primitives[part])
            return added

    return Converter
