"""From JSON schemas to GBNF, the grammars that llama.cpp's sampler follows."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.integers import integer_bounds, integers_between
from lfm2gguf.llamacpp.library import library

Schema = Mapping[str, Any]

MOST_REPETITIONS = 2_000  # each is written out, and the parser's stack holds no more of them
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
            elif key == "pattern" and isinstance(value, str):
                yield from (int(digits) for digits in re.findall(r"\d+(?=[^{]*})", value))
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
    except Exception as error:  # the converter asserts, and looks keys up
        said = isinstance(error, ValueError | AssertionError) and str(error)
        reason = said or f"a part of it is of the wrong kind ({error!r})"
        raise OptionError(f"the JSON schema cannot be turned into a grammar: {reason}") from error


# What says something of a value; a schema with none of it allows any (JSON Schema, 4.3.2).
_SAYS = {
    "type", "$ref", "oneOf", "anyOf", "allOf", "const", "enum", "properties",
    "additionalProperties", "items", "prefixItems", "pattern", "format",
}  # fmt: skip


# Strings without control characters, and without "<|": no marker, such as the end of a call, may
# come up inside of a value. What is left out can be written as an escape.
_ESCAPE = r'"\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])'
_STRINGS = {
    "char": (rf'[^\x00-\x1F"\\<] | {_ESCAPE}', []),
    "after-less": (rf'[^\x00-\x1F"\\<|] | {_ESCAPE}', []),
    "string": (r'"\"" (char | "<"+ after-less)* "<"* "\"" space', ["char", "after-less"]),
}


@functools.cache
def _converter() -> Any:
    """Return llama-cpp-python's converter (0.3.36, ``llama_grammar.py``), put right.

    As it stands, strings may hold raw control characters, constants with a backslash come out
    wrong, two schemas' definitions of one name are taken for each other, a schema that says
    nothing allows only objects, and integers have no bounds.
    """
    from llama_cpp.llama_grammar import (
        PRIMITIVE_RULES,
        STRING_FORMAT_RULES,
        BuiltinRule,
        SchemaConverter,
    )

    own = {name: BuiltinRule(*rule) for name, rule in _STRINGS.items()}
    primitives = {**STRING_FORMAT_RULES, **PRIMITIVE_RULES, **own}

    class Converter(SchemaConverter):  # type: ignore[misc]
        def visit(self, schema: Any, name: str) -> str:
            schema = {} if schema is True else schema
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
            if not schema.keys() & _SAYS:
                value = self._add_primitive("value", PRIMITIVE_RULES["value"])
                return str(self._add_rule(name or "root", value))
            return str(super().visit(schema, name))

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
