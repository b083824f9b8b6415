"""JSON schemas of tools: whether one is sound, and whether a value is what it allows."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.json_text import too_deep

Schema = Mapping[str, Any] | bool

DEEPEST = 100  # schemas in schemas

_INSTANCES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def check_schema(schema: Any, where: str) -> None:
    """Refuse a schema in which a keyword that is looked at holds what it cannot hold.

    Raises:
        OptionError: naming the keyword.

    """
    if not isinstance(schema, Mapping):
        raise OptionError(f"{where}: {reprlib.repr(schema)} is not a JSON schema; give an object")
    _check(schema, where, 0)


def _check(schema: Any, where: str, depth: int) -> None:
    if depth > DEEPEST:
        raise OptionError(f"{where:.200}: schemas nest deeper than {DEEPEST}; make it flatter")
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise OptionError(f"{where}: {reprlib.repr(schema)} is not a JSON schema; give an object")
    for keyword, (holds, what) in _HOLDS.items():
        value = schema.get(keyword)
        if value is not None and not holds(value):
            raise OptionError(
                f"{where}.{keyword}: {reprlib.repr(value)} is not {what}; correct the schema"
            )
    for keyword, inner in _inner(schema):
        _check(inner, f"{where}.{keyword}", depth + 1)


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the schemas that a schema holds, and where."""
    for key, part in (schema.get("properties") or {}).items():
        yield f"properties.{key}", part
    for keyword in ("anyOf", "oneOf"):
        for i, part in enumerate(schema.get(keyword) or ()):
            yield f"{keyword}[{i}]", part
    for keyword in ("items", "additionalProperties"):
        if isinstance(part := schema.get(keyword), Mapping):
            yield keyword, part


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_LIST = (lambda value: isinstance(value, list | tuple), "a list")
_HOLDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (
        lambda value: isinstance(value, str) or _are_texts(value),
        "a type's name, or several",
    ),
    "enum": _LIST,
    "anyOf": _LIST,
    "oneOf": _LIST,
    "required": (_are_texts, "a list of names"),
    "properties": (lambda value: isinstance(value, Mapping), "an object"),
    "minimum": (_is_number, "a number"),
    "maximum": (_is_number, "a number"),
}


def schema_problem(value: Any, schema: Schema, where: str) -> str | None:
    """Return why a value is not what a JSON schema allows, or None.

    Looks at type, nullable, enum, const, anyOf, oneOf, required, properties,
    additionalProperties, items and the bounds of numbers; other keywords constrain nothing. A
    keyword that is null is one that is not there. No value nests deeper than a JSON text may.
    """
    if too_deep(value):
        return f"{where}: it nests too deep"
    return _problem(value, schema, where)


def _problem(value: Any, schema: Schema, where: str) -> str | None:
    if schema is False:
        return f"{where}: nothing may stand there"
    if schema is True or (value is None and schema.get("nullable")):
        return None
    for problem in (_of_value, _of_number, _of_object, _of_items, _of_choice):
        found = problem(value, schema, where)
        if found:
            return found
    return None


def _of_value(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    kinds = schema.get("type") or []
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{where}: {value!r} is not of type {' or '.join(kinds)}"
    if (choices := schema.get("enum")) is not None and value not in choices:
        return f"{where}: {value!r} is not one of {choices!r}"
    if "const" in schema and value != schema["const"]:
        return f"{where}: {value!r} is not {schema['const']!r}"
    return None


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _INSTANCES.get(kind, (object,)))


def _of_number(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and value < least:
        return f"{where}: {value!r} is below {least!r}"
    if most is not None and value > most:
        return f"{where}: {value!r} is above {most!r}"
    return None


def _of_object(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    if not isinstance(value, dict):
        return None
    missing = [name for name in schema.get("required") or () if name not in value]
    if missing:
        return f"{where}: {missing[0]!r} is missing"
    properties, other = schema.get("properties") or {}, schema.get("additionalProperties", True)
    for name, item in value.items():
        if name not in properties and other is False:
            return f"{where}: there is no {name!r}; known are {sorted(properties)}"
        inner = properties.get(name, other if isinstance(other, Mapping) else {})
        found = _problem(item, inner, f"{where}.{name}")
        if found:
            return found
    return None


def _of_items(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    items = schema.get("items")
    if not isinstance(value, list) or not isinstance(items, Mapping):
        return None
    found = (_problem(item, items, f"{where}[{i}]") for i, item in enumerate(value))
    return next(filter(None, found), None)


def _of_choice(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    choices = schema.get("anyOf") or schema.get("oneOf")
    if not choices:
        return None
    problems = [_problem(value, choice, where) for choice in choices]
    return None if None in problems else problems[0]
