"""LangChain's ChatOpenAI: chat and Responses."""

from __future__ import annotations

import openai
from checks import (
    KEY,
    MODEL,
    QUESTION,
    URL,
    Person,
    asked,
    called_once_at_least,
    get_time,
    main,
    raises,
)
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

MODELS = [
    ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=KEY, use_responses_api=responses)
    for responses in (False, True)
]
time_tool = tool(get_time)


def text() -> None:
    for model in MODELS:
        assert model.invoke(QUESTION).text


def stream() -> None:
    for model in MODELS:
        chunks = list(model.stream(QUESTION))
        assert len(chunks) > 1
        assert "".join(chunk.text for chunk in chunks)


def tools() -> None:
    for model in MODELS:
        asked.clear()
        messages = [HumanMessage(QUESTION)]
        for choice in ("required", "get_time", None):
            answer = model.bind_tools([time_tool], tool_choice=choice).invoke(messages)
            messages.append(answer)
            for call in answer.tool_calls:
                said = time_tool.invoke(call["args"])
                messages.append(ToolMessage(said, tool_call_id=call["id"]))
        called_once_at_least(answer.content or answer.tool_calls)


def structured() -> None:
    for model in MODELS:
        for method in ("json_schema", "function_calling"):
            found = model.with_structured_output(Person, method=method).invoke(QUESTION)
            assert isinstance(found, Person), method


def errors() -> None:
    stranger = ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key="wrong")
    raises(openai.AuthenticationError, lambda: stranger.invoke(QUESTION))


main(text, stream, tools, structured, errors)
