"""What a suite needs: the server's address, and a line of JSON for each check.

A suite is a program: ``python with_NAME.py URL MODEL``. Its checks are functions of the names in
``ORDER``; each is told as ``{"check", "ok", "why"}``. It runs in the clients' environment, where
the product is not installed.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pydantic

URL, MODEL = sys.argv[1:3] if len(sys.argv) > 2 else ("http://127.0.0.1:8080", "tiny")
KEY = "secret"
QUESTION = "What time is it in Rome?"
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Person(pydantic.BaseModel):
    """A person; bounded, as the example model would write a name without an end."""

    name: str = pydantic.Field(max_length=12)
    age: int = pydantic.Field(ge=0, le=99)


asked: list[str] = []  # cities that the tool was called for


def get_time(city: str) -> str:
    """Tells the time in a city.

    Args:
        city: The city.
    """
    asked.append(city)
    return f"noon in {city}"


def called_once_at_least(answer: object) -> None:
    """The tool has run, and there is an answer after it."""
    assert asked, "the tool was not called"
    assert all(isinstance(city, str) for city in asked)
    assert answer, "no answer came after the call"


def until_the_limit(kind: type[BaseException], do: Callable[[], Any]) -> None:
    """The tool runs and its results go back; the example model may well call it forever."""
    try:
        called_once_at_least(do())
    except kind:
        assert len(asked) > 1, "no result went back"


def raises(kind: type[BaseException], do: Callable[[], Any]) -> str:
    """Return what an error says that must come."""
    try:
        do()
    except kind as error:
        return str(error)
    raise AssertionError(f"nothing was raised, where {kind} should have been")


def main(*checks: Callable[[], None]) -> None:
    """Run the checks one after the other."""
    for check in checks:
        asked.clear()
        told: dict[str, Any] = {"check": check.__name__, "ok": True}
        try:
            check()
        except Exception:
            told |= {"ok": False, "why": traceback.format_exc()[-2500:]}
        print(json.dumps(told), flush=True)
