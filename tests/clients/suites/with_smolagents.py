"""smolagents' OpenAIModel, and an agent that calls tools."""

from __future__ import annotations

import openai
from checks import KEY, MODEL, PERSON, QUESTION, URL, get_time, main, raises
from smolagents import OpenAIModel, ToolCallingAgent, tool


def opened(key: str = KEY) -> OpenAIModel:
    return OpenAIModel(model_id=MODEL, api_base=f"{URL}/v1", api_key=key)


ASK = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
time_tool = tool(get_time)


def text() -> None:
    assert opened().generate(ASK).content


def stream() -> None:
    assert "".join(delta.content or "" for delta in opened().generate_stream(ASK))


def tools() -> None:
    message = opened().generate(ASK, tools_to_call_from=[time_tool])
    assert message.tool_calls[0].function.name == "get_time"
    agent = ToolCallingAgent(tools=[time_tool], model=opened(), max_steps=2, verbosity_level=0)
    assert agent.run(QUESTION)


def structured() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}}
    assert '"age"' in opened().generate(ASK, response_format=form).content


def errors() -> None:
    raises(openai.AuthenticationError, lambda: opened("wrong").generate(ASK))


main(text, stream, tools, structured, errors)
