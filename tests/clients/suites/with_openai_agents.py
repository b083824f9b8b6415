"""OpenAI's Agents: Responses, which is its default, and chat."""

from __future__ import annotations

import asyncio
import functools

import openai
import pydantic
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from checks import KEY, MODEL, QUESTION, URL, asked, called_once_at_least, get_time, main, raises

set_tracing_disabled(True)


def models(key: str = KEY) -> list:
    client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=key)
    set_default_openai_client(client, use_for_tracing=False)
    return [
        MODEL,
        OpenAIResponsesModel(MODEL, openai_client=client),
        OpenAIChatCompletionsModel(MODEL, openai_client=client),
    ]


class Person(pydantic.BaseModel):
    name: str
    age: int


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
        # under another name, by which the example model does not call it unless it must
        clock = function_tool(get_time, name_override="clock")
        settings = ModelSettings(tool_choice="required")
        agent = Agent(name="clock", model=model, tools=[clock], model_settings=settings)
        called_once_at_least(Runner.run_sync(agent, QUESTION).final_output)


def structured() -> None:
    for model in models():
        agent = Agent(name="form", model=model, output_type=Person)
        assert isinstance(Runner.run_sync(agent, QUESTION).final_output, Person), model


def errors() -> None:
    for model in models("wrong"):
        agent = Agent(name="stranger", model=model)
        raises(openai.AuthenticationError, functools.partial(Runner.run_sync, agent, QUESTION))


main(text, stream, tools, structured, errors)
