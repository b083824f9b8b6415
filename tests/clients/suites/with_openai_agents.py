"""OpenAI's Agents: Responses, which is its default, and chat."""

from __future__ import annotations

import asyncio
import functools

import openai
from agents import (
    Agent,
    MaxTurnsExceeded,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
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

set_tracing_disabled(True)


def models(key: str = KEY) -> list:
    client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=key)
    set_default_openai_client(client, use_for_tracing=False)
    return [
        MODEL,
        OpenAIResponsesModel(MODEL, openai_client=client),
        OpenAIChatCompletionsModel(MODEL, openai_client=client),
    ]


def text() -> None:
    for model in models():
        agent = Agent(name="brief", instructions="Be brief.", model=model)
        assert Runner.run_sync(agent, QUESTION).final_output, model


def stream() -> None:
    async def run(model: object) -> str:
        result = Runner.run_streamed(Agent(name="brief", model=model), QUESTION)
        types = [event.type async for event in result.stream_events()]
        assert types.count("raw_response_event") > 2
        return result.final_output

    for model in models():
        assert asyncio.run(run(model)), model


def tools() -> None:
    for model in models():
        asked.clear()
        clock = function_tool(get_time)
        settings = ModelSettings(tool_choice="required")
        agent = Agent(name="clock", model=model, tools=[clock], model_settings=settings)
        run = functools.partial(Runner.run_sync, agent, QUESTION, max_turns=3)
        until_the_limit(MaxTurnsExceeded, run)


def structured() -> None:
    for model in models():
        agent = Agent(name="form", model=model, output_type=Person)
        assert isinstance(Runner.run_sync(agent, QUESTION).final_output, Person), model


def errors() -> None:
    for model in models("wrong"):
        agent = Agent(name="stranger", model=model)
        raises(openai.AuthenticationError, functools.partial(Runner.run_sync, agent, QUESTION))


main(text, stream, tools, structured, errors)
