"""Instructor, in its modes for OpenAI's chat and Responses and for JSON."""

from __future__ import annotations

import instructor
import openai
from checks import KEY, MODEL, QUESTION, URL, Person, main, raises

ASK = [{"role": "user", "content": QUESTION}]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)


def asked(mode: instructor.Mode) -> None:
    made = instructor.from_openai(client, mode=mode)
    found = made.chat.completions.create(model=MODEL, messages=ASK, response_model=Person)
    assert isinstance(found, Person)


def tools() -> None:
    asked(instructor.Mode.TOOLS)


def structured() -> None:
    asked(instructor.Mode.JSON_SCHEMA)


def stream() -> None:
    made = instructor.from_openai(client)
    partials = list(
        made.chat.completions.create_partial(model=MODEL, messages=ASK, response_model=Person)
    )
    assert partials[-1].name is not None


def responses() -> None:
    asked(instructor.Mode.RESPONSES_TOOLS)


def errors() -> None:
    made = instructor.from_openai(openai.OpenAI(base_url=f"{URL}/v1", api_key="wrong"))
    raises(
        Exception,
        lambda: made.chat.completions.create(model=MODEL, messages=ASK, response_model=Person),
    )


main(tools, structured, stream, responses, errors)
