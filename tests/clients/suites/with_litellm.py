"""LiteLLM: chat, and its bridges to and from Responses and Anthropic's messages."""

from __future__ import annotations

import asyncio
import functools
import json

import litellm
from checks import KEY, MODEL, QUESTION, URL, Person, called_once_at_least, get_time, main, raises

ASK = [{"role": "user", "content": QUESTION}]
ROUTES = {
    f"openai/{MODEL}": f"{URL}/v1",
    f"hosted_vllm/{MODEL}": f"{URL}/v1",
    f"openai/responses/{MODEL}": f"{URL}/v1",
    f"anthropic/{MODEL}": URL,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Tells the time in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def text() -> None:
    for model, base in ROUTES.items():
        answer = litellm.completion(model=model, api_base=base, api_key=KEY, messages=ASK)
        assert answer.choices[0].message.content, model


def stream() -> None:
    for model, base in ROUTES.items():
        chunks = list(
            litellm.completion(model=model, api_base=base, api_key=KEY, messages=ASK, stream=True)
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks), model


def tools() -> None:
    for model, base in ROUTES.items():
        messages = list(ASK)
        for choice in ("required", "auto"):
            answer = litellm.completion(
                model=model, api_base=base, api_key=KEY, messages=messages, tools=[TOOL],
                tool_choice=choice,
            )  # fmt: skip
            message = answer.choices[0].message
            messages.append(message.model_dump())
            for call in message.tool_calls or ():
                said = get_time(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
        called_once_at_least(message.content or message.tool_calls)


def structured() -> None:
    for model, base in ROUTES.items():
        answer = litellm.completion(
            model=model, api_base=base, api_key=KEY, messages=ASK, response_format=Person
        )
        Person.model_validate_json(answer.choices[0].message.content)


def responses() -> None:
    for model in (f"openai/{MODEL}", f"hosted_vllm/{MODEL}"):
        route = {"model": model, "api_base": f"{URL}/v1", "api_key": KEY}
        answer = litellm.responses(input=QUESTION, **route)
        assert answer.output[-1].content[0].text, model
        events = list(litellm.responses(input=QUESTION, stream=True, **route))
        assert events[-1].type == "response.completed", model


def messages() -> None:
    async def ask(model: str) -> None:
        answer = await litellm.anthropic_messages(
            model=model, messages=ASK, max_tokens=300, api_base=ROUTES[model], api_key=KEY
        )
        assert answer["content"][0]["text"], model

    for model in (f"openai/{MODEL}", f"anthropic/{MODEL}"):
        asyncio.run(ask(model))


def errors() -> None:
    for model, base in ROUTES.items():
        asked = {"model": model, "api_base": base, "api_key": "wrong", "messages": ASK}
        raises(litellm.AuthenticationError, functools.partial(litellm.completion, **asked))


main(text, stream, tools, structured, responses, messages, errors)
