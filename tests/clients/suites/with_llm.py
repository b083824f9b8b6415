"""Simon Willison's llm."""

from __future__ import annotations

import json

import openai
from checks import KEY, MODEL, PERSON, QUESTION, URL, called_once_at_least, get_time, main, raises
from llm.default_plugins.openai_models import Chat


def opened(key: str = KEY) -> Chat:
    model = Chat(
        "tiny", model_name=MODEL, api_base=f"{URL}/v1", supports_tools=True, supports_schema=True
    )
    model.key = key
    return model


model = opened()


def text() -> None:
    assert model.prompt(QUESTION, stream=False).text()


def stream() -> None:
    assert len(list(model.prompt(QUESTION, stream=True))) > 1


def tools() -> None:
    called_once_at_least(model.chain(QUESTION, tools=[get_time]).text())


def structured() -> None:
    found = json.loads(model.prompt(QUESTION, schema=PERSON).text())
    assert set(found) == {"name", "age"}


def errors() -> None:
    raises(openai.AuthenticationError, lambda: opened("wrong").prompt(QUESTION).text())


main(text, stream, tools, structured, errors)
