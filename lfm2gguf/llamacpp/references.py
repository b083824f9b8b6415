"""References within a JSON schema: resolved, and told apart from those of other schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

_DATA = {"const", "enum", "default", "examples"}  # hold values, not schemas


def resolved(schema: Any, name: str) -> dict[str, Any]:
    """Return the parts that a schema refers to, by reference, and write ``name`` before each.

    The schema is changed in place. Source of the forms: RFC 6901; JSON Schema 2020-12, 8.2.

    Raises:
        ValueError: a reference leads out of the schema, nowhere, or to itself.
    """
    anchors = {part["$anchor"]: part for part in _parts(schema) if _text(part, "$anchor")}
    found: dict[str, Any] = {}
    for part in _parts(schema):
        if ref := _text(part, "$ref"):
            found.setdefault(name + ref, _target(schema, ref, anchors))
            part["$ref"] = name + ref
    for ref in found:
        _check_end(ref, found)
    return found


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Return all objects of a schema that may be schemas."""
    rest = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield part
            rest += [value for key, value in part.items() if key not in _DATA]
        elif isinstance(part, list):
            rest += part


def _text(part: Mapping[str, Any], key: str) -> str | None:
    value = part.get(key)  # a property may have that name: then it is a schema
    return value if isinstance(value, str) else None


def _target(schema: Any, ref: str, anchors: Mapping[str, Any]) -> Any:
    if not ref.startswith("#"):
        raise ValueError(
            f"$ref {ref[:80]!r} leads out of the schema: write what it refers to in it"
        )
    if ref[1:] in anchors:
        return anchors[ref[1:]]
    target = schema
    for step in unquote(ref[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        elif isinstance(target, dict) and key in target:
            target = target[key]
        else:
            raise ValueError(f"$ref {ref[:80]!r} leads nowhere")
    return target


def _check_end(ref: str, found: Mapping[str, Any]) -> None:
    """Check that references to references come to an end."""
    seen, target = {ref}, found[ref]
    while isinstance(target, dict) and (ref := _text(target, "$ref") or ""):
        if ref in seen:
            raise ValueError(f"$ref {ref[-80:]!r} leads to itself")
        seen.add(ref)
        target = found[ref]
