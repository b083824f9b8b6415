"""From JSON schemas to GBNF, the grammars that llama.cpp's sampler follows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.converter import Schema, converter
from lfm2gguf.llamacpp.library import library
from lfm2gguf.llamacpp.patterns import MOST_REPETITIONS
from lfm2gguf.llamacpp.references import resolved

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

    With ``pythonic`` the values of an enum may be written as in Python, too. The methods raise
    :class:`OptionError` for a schema with a part that no grammar can express.
    """

    def __init__(self, *, pythonic: bool = False) -> None:
        library()
        self._converter = converter()(
            prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False
        )
        self._converter.pythonic = pythonic

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
        own = json.loads(json.dumps(schema))
        self._converter.refer(resolved(own, name))
        return own


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
    except RecursionError as error:
        raise OptionError(
            "the JSON schema cannot be turned into a grammar: it nests too deep"
        ) from error
    except Exception as error:  # the converter asserts, and looks keys up
        said = isinstance(error, ValueError | AssertionError) and str(error)
        if said and "integer string conversion" in said:
            said = "a number in it has thousands of digits"
        reason = said or f"a part of it is of the wrong kind ({error!r})"
        raise OptionError(f"the JSON schema cannot be turned into a grammar: {reason}") from error
