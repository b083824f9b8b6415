"""Pydantic AI: OpenAI's chat and Responses, and Anthropic's messages."""

from __future__ import annotations

import asyncio
import functools

from checks import (
    KEY,
    MODEL,
    QUESTION,
    URL,
    Person,
    asked,
    get_time,
    main,
    raises,
    until_the_limit,
)
from pydantic_ai import Agent, ModelHTTPError, UsageLimitExceeded, UsageLimits
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


def models(key: str = KEY) -> list:
    openai = OpenAIProvider(base_url=f"{URL}/v1", api_key=key)
    return [
        OpenAIChatModel(MODEL, provider=openai),
        OpenAIResponsesModel(MODEL, provider=openai),
        AnthropicModel(MODEL, provider=AnthropicProvider(base_url=URL, api_key=key)),
    ]


def text() -> None:
    for model in models():
        assert Agent(model, instructions="Be brief.").run_sync(QUESTION).output, model


def stream() -> None:
    async def said(model: object) -> str:
        async with Agent(model).run_stream(QUESTION) as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])

    for model in models():
        assert asyncio.run(said(model)), model


def tools() -> None:
    for model in models():
        asked.clear()
        agent = Agent(model, tools=[get_time])
        limits = UsageLimits(request_limit=3)
        until_the_limit(
            UsageLimitExceeded, functools.partial(agent.run_sync, QUESTION, usage_limits=limits)
        )


def structured() -> None:
    for model in models():
        found = Agent(model, output_type=Person).run_sync(QUESTION).output
        assert isinstance(found, Person), model


def errors() -> None:
    for model in models("wrong"):
        raises(ModelHTTPError, functools.partial(Agent(model).run_sync, QUESTION))


main(text, stream, tools, structured, errors)
