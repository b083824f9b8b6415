"""OpenAI's client: chat completions."""

from __future__ import annotations

import json

import openai
from checks import (
    KEY,
    MODEL,
    PERSON,
    QUESTION,
    URL,
    Person,
    called_once_at_least,
    get_time,
    main,
    raises,
)

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)
ASK = [{"role": "user", "content": QUESTION}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Tells the time in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def text() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


def stream() -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=ASK, stream_options={"include_usage": True}
    ) as events:
        final = events.get_final_completion()
    assert final.choices[0].message.content
    assert final.usage.completion_tokens > 0


def tools() -> None:
    messages = list(ASK)
    for choice in ("required", {"type": "function", "function": {"name": "get_time"}}, "auto"):
        answer = client.chat.completions.create(
            model=MODEL, messages=messages, tools=[TOOL], tool_choice=choice
        )
        message = answer.choices[0].message
        messages.append(message)
        for call in message.tool_calls or ():
            said = get_time(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
    called_once_at_least(message.content or message.tool_calls)


def structured() -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Person)
    assert answer.choices[0].message.parsed.age <= 99
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}}
    answer = client.chat.completions.create(model=MODEL, messages=ASK, response_format=form)
    assert set(json.loads(answer.choices[0].message.content)) == {"name", "age"}


def errors() -> None:
    raises(openai.BadRequestError, lambda: client.chat.completions.create(model=MODEL, messages=[]))
    stranger = openai.OpenAI(base_url=f"{URL}/v1", api_key="wrong")
    raises(openai.AuthenticationError, lambda: stranger.models.list())


main(text, stream, tools, structured, errors)
