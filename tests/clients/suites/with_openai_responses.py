"""OpenAI's client: responses."""

from __future__ import annotations

import json

import openai
from checks import KEY, MODEL, QUESTION, URL, Person, called_once_at_least, get_time, main, raises

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)
TOOL = {
    "type": "function",
    "name": "get_time",
    "description": "Tells the time in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def text() -> None:
    answer = client.responses.create(model=MODEL, input=QUESTION, instructions="Be brief.")
    assert answer.output_text
    assert answer.usage.total_tokens > 0


def stream() -> None:
    with client.responses.stream(model=MODEL, input=QUESTION) as events:
        types = [event.type for event in events]
        assert events.get_final_response().output_text
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"


def tools() -> None:
    conversation = [{"role": "user", "content": QUESTION}]
    for choice in ("required", "auto"):
        answer = client.responses.create(
            model=MODEL, input=conversation, tools=[TOOL], tool_choice=choice
        )
        conversation += answer.output
        for item in answer.output:
            if item.type == "function_call":
                output = get_time(**json.loads(item.arguments))
                told = {"type": "function_call_output", "call_id": item.call_id, "output": output}
                conversation.append(told)
    called_once_at_least(answer.output)


def structured() -> None:
    answer = client.responses.parse(model=MODEL, input=QUESTION, text_format=Person)
    assert answer.output_parsed.age <= 99


def errors() -> None:
    said = raises(
        openai.BadRequestError,
        lambda: client.responses.create(model=MODEL, input=QUESTION, previous_response_id="resp_1"),
    )
    assert "previous_response_id" in said
    stranger = openai.OpenAI(base_url=f"{URL}/v1", api_key="wrong")
    raises(
        openai.AuthenticationError, lambda: stranger.responses.create(model=MODEL, input=QUESTION)
    )


main(text, stream, tools, structured, errors)
