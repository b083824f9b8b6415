"""From JSON schemas to GBNF, the grammars that llama.cpp's sampler follows."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.automaton import Budget, pattern_rules
from lfm2gguf.llamacpp.integers import integer_bounds, integers_between
from lfm2gguf.llamacpp.keys import COMMA, object_rules, other_keys
from lfm2gguf.llamacpp.library import library
from lfm2gguf.llamacpp.patterns import MOST_REPETITIONS

Schema = Mapping[str, Any]

MOST_TOGETHER = 20_000


def json_schema_grammar(schema: Schema) -> str:
    """Return the GBNF grammar of the JSON texts that a JSON schema allows.

    Beyond a grammar, and not enforced, are bounds of numbers that are not integers,
    ``multipleOf``, ``uniqueItems``, ``patternProperties`` and conditions (``if``, ``not``).

    Raises:
        OptionError: no grammar can express a part of the schema.
    """
    rules = SchemaRules()
    rules.add("", schema)
    return rules.text


class SchemaRules:
    """GBNF rules of JSON values, to be composed into a grammar.

    The methods raise :class:`OptionError` for a schema with a part that no grammar can express.
    """

    def __init__(self) -> None:
        library()
        self._converter = _converter()(
            prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False
        )

    def add(self, name: str, schema: Schema) -> str:
        """Return the rule for a schema; the empty name is the start symbol ``root``."""
        with _expressible():
            return str(self._converter.visit(self._resolved(schema, name), name))

    def add_properties(self, name: str, schema: Schema) -> dict[str, str]:
        """Return the rules for the properties of an object's schema, by property."""
        with _expressible():
            properties = self._resolved(schema, name).get("properties", {})
            return {
                key: str(self._converter.visit(part, f"{name}-{key}"))
                for key, part in properties.items()
            }

    @property
    def text(self) -> str:
        """All rules so far, one a line."""
        return str(self._converter.format_grammar())

    def _resolved(self, schema: Schema, name: str) -> Any:
        _check_repetitions(schema)
        return self._converter.resolve_refs(json.loads(json.dumps(schema)), name)


def _check_repetitions(schema: Any) -> None:
    """Refuse what would take minutes and gigabytes to write out.

    Raises:
        ValueError: there are too many repetitions.
    """
    counts = list(_repetitions(schema))
    largest = max(counts, default=0)
    if largest > MOST_REPETITIONS:
        raise ValueError(f"{largest} repetitions are asked for, and {MOST_REPETITIONS} can be had")
    if sum(counts) > MOST_TOGETHER:
        raise ValueError(
            f"its repetitions come to {sum(counts)}, and {MOST_TOGETHER} together can be had"
        )


def _repetitions(schema: Any) -> Iterator[int]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in _COUNTS and isinstance(value, int):
                yield value
            else:
                yield from _repetitions(value)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _repetitions(part)


_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")


@contextlib.contextmanager
def _expressible() -> Iterator[None]:
    try:
        yield
    except OptionError:
        raise
    except Exception as error:  # the converter asserts, and looks keys up
        said = isinstance(error, ValueError | AssertionError) and str(error)
        reason = said or f"a part of it is of the wrong kind ({error!r})"
        raise OptionError(f"the JSON schema cannot be turned into a grammar: {reason}") from error


# What says something of a value; a schema with none of it allows any (JSON Schema, 4.3.2).
_SAYS = {
    "type", "$ref", "oneOf", "anyOf", "allOf", "const", "enum", "properties",
    "additionalProperties", "items", "prefixItems", "pattern", "format",
}  # fmt: skip


# What the converter looks at before a value's type, and what says something of arrays.
_FIRST = {"$ref", "oneOf", "anyOf", "allOf", "const", "enum", "properties"}
_ITEMS = {"items", "prefixItems"}
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


@functools.cache
def _converter() -> Any:
    """Return llama-cpp-python's converter (0.3.36, ``llama_grammar.py``), corrected.

    As it stands, strings may hold raw control characters, constants with a backslash come out
    wrong, two schemas' definitions of one name are taken for each other, a schema that says
    nothing allows only objects, other properties follow the named ones without a comma, what is
    required may be left out, integers have no bounds, ``items`` cannot be ``{}`` or follow
    ``prefixItems``, and some patterns are never done with.
    """
    from llama_cpp.llama_grammar import (
        PRIMITIVE_RULES,
        RESERVED_NAMES,
        STRING_FORMAT_RULES,
        BuiltinRule,
        SchemaConverter,
        _build_repetition,
    )

    own = {name: BuiltinRule(*rule) for name, rule in _STRINGS.items()}
    primitives = {**STRING_FORMAT_RULES, **PRIMITIVE_RULES, **own}

    class Converter(SchemaConverter):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self._patterns: dict[tuple[str, int, int | None], str] = {}
            self._budget = Budget()

        def visit(self, schema: Any, name: str) -> str:
            if schema is False:
                raise ValueError("no value fits the schema false")
            if schema is not True and schema.get("enum") == []:
                raise ValueError("no value fits an enum of nothing")
            schema = {} if schema is True else schema
            name = f"{name}-" if name in {*RESERVED_NAMES, *own} else name
            if schema.get("nullable"):
                rest = {key: value for key, value in schema.items() if key != "nullable"}
                return str(super().visit({"anyOf": [rest, {"type": "null"}]}, name))
            if isinstance(kinds := schema.get("type"), list):
                parts = [{**schema, "type": kind} for kind in kinds]
                return str(self._add_rule(name or "root", self._generate_union_rule(name, parts)))
            if kinds == "integer" and not schema.keys() & {"const", "enum"}:
                bounds = integer_bounds(schema)
                if bounds != (None, None):
                    bounded = f"({integers_between(*bounds)}) space"
                    return str(self._add_rule(name or "root", bounded))
            if kinds == "object" and "required" in schema and "properties" not in schema:
                schema = {"properties": {}, "additionalProperties": True, **schema}
            if own_rule := self._own_rule(schema, name):
                return str(self._add_rule(name or "root", own_rule))
            if not schema.keys() & _SAYS:
                value = self._add_primitive("value", PRIMITIVE_RULES["value"])
                return str(self._add_rule(name or "root", value))
            return str(super().visit(schema, name))

        def _own_rule(self, schema: Schema, name: str) -> str | None:
            kind, keys = schema.get("type"), schema.keys()
            if keys & _FIRST:
                return None
            if (kind == "array" and keys & _OF_ARRAYS) or (kind is None and keys & _ITEMS):
                return self._array(schema, name)
            return self._string(schema) if kind in (None, "string") and "pattern" in keys else None

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
                rule += f" {_build_repetition(*several)}"
            return f'"[" space {rule} "]" space'

        def _generate_union_rule(self, name: str, alternatives: list[Any]) -> str:
            possible = [part for part in alternatives if part is not False]
            if not possible:
                raise ValueError("no value fits a choice of nothing")
            return str(super()._generate_union_rule(name, possible))

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
            """Return a name that no rule's name begins with."""
            taken = "\n".join(["", *self._rules])
            return next(n for i in itertools.count() if f"\n{(n := f'{start}{i}')}-" not in taken)

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

        def _format_literal(self, literal: str) -> str:
            text = json.dumps(json.loads(literal), ensure_ascii=False)
            return f'"{_escaped(text)}"'

        def _resolve_ref(self, ref: str) -> str:
            name = "ref-" + re.sub("[^a-zA-Z0-9]+", "-", ref)
            if name not in self._rules and ref not in self._refs_being_resolved:
                self._refs_being_resolved.add(ref)
                name = str(self.visit(self._refs[ref], name))
                self._refs_being_resolved.remove(ref)
            return name

        def _add_primitive(self, name: str, rule: Any) -> Any:
            rule = own.get(name, rule)
            added = self._add_rule(name, rule.content)
            for part in rule.deps:
                if part not in self._rules:
                    self._add_primitive(part, primitives[part])
            return added

    return Converter


def _escaped(text: str) -> str:
    """Escape a text for a GBNF literal."""
    for plain, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, written)
    return text
