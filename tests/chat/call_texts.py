"""Answers of models, and what they call: (text, what is said, the calls).

``LLAMA_CPP`` holds the texts of llama.cpp's own tests of LFM2's parser (tests/test-chat.cpp at
0c1e57098, ``test_lfm2_parser`` and the cases of LFM2.5-8B-A1B after it), the right values as they
stand there; the two that end inside of a call are in test_answer.py. ``IN_THE_WILD`` holds
what agents were seen to write, kind by kind, as the tests of vLLM (tests/tool_parsers), SGLang
(test/registered/unit/function_call) and Ollama (model/parsers) for LFM2 report it.
Where nothing is called, nothing may be guessed.
"""

from __future__ import annotations

from typing import Any

START, END = "<|tool_call_start|>", "<|tool_call_end|>"
Case = tuple[str, str, list[tuple[str, dict[str, Any]]]]

LLAMA_CPP: list[Case] = [
    ("Hello, world!\nWhat's up?", "Hello, world!\nWhat's up?", []),
    (f"{START}[special_function(arg1=1)]{END}", "", [("special_function", {"arg1": 1})]),
    (f'{START}[get_time(city="XYZCITY")]{END}', "", [("get_time", {"city": "XYZCITY"})]),
    (f"{START}[toggle(enabled=True)]{END}", "", [("toggle", {"enabled": True})]),
    (f"{START}[set_nullable(value=None)]{END}", "", [("set_nullable", {"value": None})]),
    (
        f'{START}[set_config(config={{"enabled": True, "count": 3}})]{END}',
        "",
        [("set_config", {"config": {"enabled": True, "count": 3}})],
    ),
    (
        f'{START}[set_config(config={{"enabled": true, "note": null}})]{END}',
        "",
        [("set_config", {"config": {"enabled": True, "note": None}})],
    ),
    (
        f'{START}[Calendar.create_event(title="demo", participants=["Alice", "Bob"], '
        f'metadata={{"priority": "high", "reminder": true}})]{END}',
        "",
        [
            (
                "Calendar.create_event",
                {
                    "title": "demo",
                    "participants": ["Alice", "Bob"],
                    "metadata": {"priority": "high", "reminder": True},
                },
            )
        ],
    ),
    (
        "Use this format: [link text](url). Example: [Wikipedia](https://www.wikipedia.org).",
        "Use this format: [link text](url). Example: [Wikipedia](https://www.wikipedia.org).",
        [],
    ),
    (
        f"{START}[python(code=\"def hello():\\n    print('hey')\")]{END}",
        "",
        [("python", {"code": "def hello():\n    print('hey')"})],
    ),
    (
        f'{START}[python(code="First line\\nSecond line\\tindented")]{END}',
        "",
        [("python", {"code": "First line\nSecond line\tindented"})],
    ),
    (f'{START}[python(code="print(\\"hi\\")")]{END}', "", [("python", {"code": 'print("hi")'})]),
    (
        f'Let me check the time.{START}[get_time(city="Paris")]{END}',
        "Let me check the time.",
        [("get_time", {"city": "Paris"})],
    ),
    (
        f"{START}[special_function(arg1=1), special_function_with_opt(arg1=1, arg2=2)]{END}",
        "",
        [("special_function", {"arg1": 1}), ("special_function_with_opt", {"arg1": 1, "arg2": 2})],
    ),
    (f"{START}[empty_args()]{END}", "", [("empty_args", {})]),
    (
        f"<think>I'm\nthinking</think>{START}[special_function(arg1=1)]{END}",
        "",
        [("special_function", {"arg1": 1})],
    ),
    (
        "<think>I need to call a function</think>"
        f'Let me check the time.{START}[get_time(city="Paris")]{END}',
        "Let me check the time.",
        [("get_time", {"city": "Paris"})],
    ),
    (
        f"<think>Let me think about {START}[special_function(arg1=1)]{END} hmm</think>"
        f"{START}[special_function(arg1=1)]{END}",
        "",
        [("special_function", {"arg1": 1})],
    ),
    (
        "<think>I'm\nthinking</think>Hello, world!\nWhat's up?",
        "Hello, world!\nWhat's up?",
        [],
    ),
]

NESTED = "sed -n '1,5p' main.c"
INNER = "print(f(x, end='\\,'))"
IN_THE_WILD: list[Case] = [
    # values that are Python's and not JSON's
    (f"{START}[tag(names={{'new', 'old'}})]{END}", "", [("tag", {"names": ["new", "old"]})]),
    (f"{START}[tag(names={{1,}}, size=(8, 6))]{END}", "",
     [("tag", {"names": [1], "size": [8, 6]})]),
    (f"{START}[say(text=f'hello')]{END}", "", [("say", {"text": "hello"})]),
    (f"{START}[say(text=f'{{{{x}}}}')]{END}", "", [("say", {"text": "{x}"})]),
    (f"{START}[say(text=f'{{x}}')]{END}", "", []),
    (f"{START}[find(text=r'\\d+\\n')]{END}", "", [("find", {"text": "\\d+\\n"})]),
    (f"{START}[find(text='\\d+')]{END}", "", [("find", {"text": "\\d+"})]),
    (f"{START}[find(text=b'raw')]{END}", "", []),
    (f"{START}[date(month=07, day=+5, at=-74.005)]{END}", "",
     [("date", {"month": 7, "day": 5, "at": -74.005})]),
    (f"{START}[find(**{{'text': 'x'}}, limit=2)]{END}", "", [("find", {"text": "x", "limit": 2})]),
    (f"{START}[find(limit=1, **{{'limit': 2}})]{END}", "", [("find", {"limit": 2})]),
    (f"{START}[find(**['text'])]{END}", "", []),
    (f"{START}[get(from=1, class='x')]{END}", "", [("get", {"from": 1, "class": "x"})]),
    # what JSON cannot say
    (f"{START}[find(limit=1e999)]{END}", "", []),
    (f"{START}[find(limit=NaN)]{END}", "", []),
    (f"{START}[find(limit=-inf)]{END}", "", []),
    (f"{START}[find(limit={'9' * 400})]{END}", "", []),
    (f'{START}[{{"name": "find", "arguments": {{"limit": Infinity}}}}]{END}', "", []),
    (f"{START}[find('positional', limit=2)]{END}", "", []),
    (f"{START}[find(limit=2*3)]{END}", "", []),
    # quotes
    (f"{START}[sh(run='{NESTED}')]{END}", "", [("sh", {"run": NESTED})]),
    (f"{START}[sh(at='/tmp', run='{NESTED}', wait=1)]{END}", "",
     [("sh", {"at": "/tmp", "run": NESTED, "wait": 1})]),
    (f"{START}[sh(run='python -c \"a\n{INNER}\"')]{END}", "",
     [("sh", {"run": f'python -c "a\n{INNER}"'})]),
    (f"{START}[sh(from='{NESTED}')]{END}", "", [("sh", {"from": NESTED})]),
    (f'{START}[sh(run="echo "hi" there")]{END}', "", [("sh", {"run": 'echo "hi" there'})]),
    (f"{START}[sh(run='a 'b'), find(text='c 'd')]{END}", "",
     [("sh", {"run": "a 'b"}), ("find", {"text": "c 'd"})]),
    (f"{START}[sh(run='echo 'hi', at='/tmp')]{END}", "", []),
    (f"{START}[sh(run='a 'b' 'c), find(text='d 'e' 'f)]{END}", "", []),
    (f"{START}[sh(run='grep -F \"]\" x')]{END}", "", [("sh", {"run": 'grep -F "]" x'})]),
    (f"{START}[sh(run='cat << EOF\na\nEOF')]{END}", "", [("sh", {"run": "cat << EOF\na\nEOF"})]),
    (f"{START}[sh(run='a\x00b')]{END}", "", [("sh", {"run": "a\x00b"})]),
    (f"{START}[sh(run='a \\\\')]{END}", "", [("sh", {"run": "a \\"})]),
    # siblings
    (f"{START}[find(text='ok'), sh(run='x 'y', at='c')]{END}", "", [("find", {"text": "ok"})]),
    (f"{START}[sh(run='x 'y', at='c'), find(text='ok')]{END}", "", [("find", {"text": "ok"})]),
    (f"{START}[sh('x'), find(text='ok')]{END}", "", [("find", {"text": "ok"})]),
    (f"{START}[find(text='ok'), sh(run=b'z')]{END}", "", [("find", {"text": "ok"})]),
    (f'{START}[{{"name": ""}}, {{"name": "find", "arguments": {{}}}}]{END}', "", [("find", {})]),
    # markers
    (f"{START}{END}", "", []),
    (f"{START}[ ]{END}Done.", "Done.", []),
    (f"{START} [find(text='x')]{END}\nDone.", "\nDone.", [("find", {"text": "x"})]),
    (f"{START}[find(text='x')]{END}[find(text='x')]{END}", "", [("find", {"text": "x"})]),
    (f"{START}[find(text='x')]{END} and {START}[sh(run='y')]{END}", " and ",
     [("find", {"text": "x"}), ("sh", {"run": "y"})]),
    (f"[find(text='x'), sh(run='y')]{END}", "", [("find", {"text": "x"}), ("sh", {"run": "y"})]),
    (f"Let me see.\n[find(text='x')]{END} Done.", "Let me see.\n Done.", [("find", {"text": "x"})]),
    (f'{{"name": "find", "arguments": {{"text": "x"}}}}{END}', "", [("find", {"text": "x"})]),
    (f"Nothing to call.{END}", "Nothing to call.", []),
    ("I would use [find(text='x')] for that.", "I would use [find(text='x')] for that.", []),
    ("Call find(text) first.", "Call find(text) first.", []),
    (f"{START}[find(text='x')]", "", [("find", {"text": "x"})]),
    # JSON
    (f'{START}{{"name":"find","arguments":{{"text":"北京"}}}}{END}', "",
     [("find", {"text": "北京"})]),
    (f'{START}[{{"name": "find", "parameters": {{"text": "x"}}}}]{END}', "",
     [("find", {"text": "x"})]),
    (f"{START}[{{'name': 'find', 'arguments': {{'limit': None}}}}]{END}", "",
     [("find", {"limit": None})]),
]  # fmt: skip
TOOLS = {
    name for _, _, calls in [*LLAMA_CPP, *IN_THE_WILD] for name, _ in calls
}  # fmt: skip
