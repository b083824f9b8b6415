"""LlamaIndex's OpenAILike."""

from __future__ import annotations

import openai
from checks import KEY, MODEL, QUESTION, URL, Person, called_once_at_least, get_time, main, raises
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def opened(key: str = KEY) -> OpenAILike:
    return OpenAILike(
        model=MODEL, api_base=f"{URL}/v1", api_key=key, is_chat_model=True,
        is_function_calling_model=True, should_use_structured_outputs=True,
    )  # fmt: skip


ASK = [ChatMessage(role="user", content=QUESTION)]
llm = opened()


def text() -> None:
    assert llm.chat(ASK).message.content
    assert llm.complete(QUESTION).text


def stream() -> None:
    assert list(llm.stream_chat(ASK))[-1].message.content


def tools() -> None:
    tool = FunctionTool.from_defaults(get_time)
    answer = llm.predict_and_call([tool], QUESTION)
    called_once_at_least(str(answer))
    chosen = llm.chat_with_tools([tool], QUESTION, tool_required=True)
    assert llm.get_tool_calls_from_response(chosen)


def structured() -> None:
    found = llm.as_structured_llm(Person).chat(ASK).raw
    assert isinstance(found, Person)


def errors() -> None:
    raises(openai.AuthenticationError, lambda: opened("wrong").chat(ASK))


main(text, stream, tools, structured, errors)
