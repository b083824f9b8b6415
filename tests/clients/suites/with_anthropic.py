"""Anthropic's client."""

from __future__ import annotations

import anthropic
from checks import KEY, MODEL, QUESTION, URL, Person, called_once_at_least, get_time, main, raises

client = anthropic.Anthropic(base_url=URL, api_key=KEY)
ASKED = {"model": MODEL, "max_tokens": 300, "messages": [{"role": "user", "content": QUESTION}]}
TOOL = {
    "name": "get_time",
    "description": "Tells the time in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def text() -> None:
    message = client.messages.create(system="Be brief.", **ASKED)
    anthropic.types.Message.model_validate(message.model_dump())
    assert message.content[0].text
    assert message.stop_reason == "end_turn"
    counted = client.messages.count_tokens(
        system="Be brief.", model=MODEL, messages=ASKED["messages"]
    )
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def stream() -> None:
    with client.messages.stream(**ASKED) as events:
        said = "".join(events.text_stream)
        final = events.get_final_message()
    assert said
    assert said == final.content[0].text
    assert final.usage.output_tokens > 0


def tools() -> None:
    turns = list(ASKED["messages"])
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_time"}, {"type": "auto"}):
        message = client.messages.create(
            **{**ASKED, "messages": turns, "tools": [TOOL], "tool_choice": choice}
        )
        uses = [block for block in message.content if block.type == "tool_use"]
        turns.append({"role": "assistant", "content": message.content})
        if uses:
            results = [
                {"type": "tool_result", "tool_use_id": use.id, "content": get_time(**use.input)}
                for use in uses
            ]
            turns.append({"role": "user", "content": results})
    called_once_at_least(message.content)


def structured() -> None:
    message = client.messages.parse(output_format=Person, **ASKED)
    assert isinstance(message.parsed_output, Person)


def errors() -> None:
    bad = {**ASKED, "messages": []}
    said = raises(anthropic.BadRequestError, lambda: client.messages.create(**bad))
    assert "messages" in said
    stranger = anthropic.Anthropic(base_url=URL, api_key="wrong")
    raises(anthropic.AuthenticationError, lambda: stranger.messages.create(**ASKED))


main(text, stream, tools, structured, errors)
