"""The text: what any Python installation carries, and conversations made from it.

Three sources, all read from the running interpreter: the language reference in
``pydoc_data.topics``, the docstrings of the standard library (Python and C modules), and the
block comments of its sources.

The held-out recipe: a document (a topic, or a top-level module with its submodules) is held out
when the first byte of ``sha256(name)`` is below 14 (one in eighteen). Nothing of it is trained
on, neither as text nor as a conversation. A held-out passage that also occurs word for word in
the training documents is dropped from the held-out text (the library repeats itself).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import pkgutil
import random
import re
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics
from typing import Any, NamedTuple

Message = dict[str, str]
SKIPPED = {"test", "tests", "idlelib", "site-packages", "__pycache__", "turtledemo", "pydoc_data"}
HELD_OUT_BELOW = 14


class Entry(NamedTuple):
    """One documented object: its qualified name, its signature if known, its docstring."""

    name: str
    signature: str
    doc: str


class Document(NamedTuple):
    """A topic or a module. ``passages`` are joined by a blank line to make its text."""

    name: str
    passages: list[str]
    entries: list[Entry]

    @property
    def held_out(self) -> bool:
        top_level = self.name.split(".")[0].lstrip("_")
        return hashlib.sha256(top_level.encode()).digest()[0] < HELD_OUT_BELOW


def documents() -> list[Document]:
    """Every document of the running interpreter, sorted by name."""
    found = [*_topics(), *_python_modules(), *_c_modules()]
    return sorted(found, key=lambda document: document.name)


def split(found: list[Document]) -> tuple[list[Document], str]:
    """The training documents, and the held-out text."""
    training = [document for document in found if not document.held_out]
    seen = {_body(passage) for document in training for passage in document.passages}
    held_out = [
        "\n\n".join(kept)
        for document in found
        if document.held_out and (kept := [p for p in document.passages if _body(p) not in seen])
    ]
    return training, "\n\n\n".join(held_out) + "\n"


def _body(passage: str) -> str:
    """The passage without its first line: a docstring without the name it belongs to."""
    return passage.partition("\n")[2] or passage


def text(document: Document) -> str:
    """The document as it is trained on."""
    return "\n\n".join(document.passages) + "\n"


def _topics() -> Iterator[Document]:
    for name, body in sorted(topics.topics.items()):
        paragraphs = [p.strip("\n") for p in re.split(r"\n\s*\n", body) if p.strip()]
        title, rest = paragraphs[0].split("\n")[0].strip(), paragraphs[1:]
        answer = " ".join(rest[0].split()) if rest else ""
        yield Document(f"topic-{name}", paragraphs, [Entry(title, "", answer)])


def _python_modules() -> Iterator[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED.isdisjoint(parts) and not parts[0].startswith("config-"):
            yield _python_module(path, ".".join(p for p in parts if p != "__init__"))


def _python_module(path: Path, name: str) -> Document:
    with tokenize.open(path) as file:
        source = file.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entries = list(_walk(ast.parse(source), name))
    comments = [c for c in _block_comments(source) if "opyright" not in c]
    return Document(name, [*map(_passage, entries), *comments], entries)


def _walk(node: ast.AST, name: str) -> Iterator[Entry]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        doc = ast.get_docstring(node)
        if doc and len(doc) > 12:
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield Entry(name, f"({ast.unparse(node.args)})" if is_function else "", doc)
    for child in ast.iter_child_nodes(node):
        own = getattr(child, "name", None) if hasattr(child, "body") else None
        yield from _walk(child, f"{name}.{own}" if own else name)


def _block_comments(source: str) -> Iterator[str]:
    """Comments of two lines or more, in prose: code that was commented out is left aside."""
    for block in re.findall(r"(?:^[ \t]*# [^\n]*\n){2,}", source, flags=re.MULTILINE):
        prose = "\n".join(line.strip()[2:] for line in block.strip().split("\n"))
        if sum(c.isalpha() or c == " " for c in prose) > 0.85 * len(prose):
            yield prose


def _c_modules() -> Iterator[Document]:
    folder = sysconfig.get_config_var("DESTSHARED") or ""
    names = {*sys.builtin_module_names, *(m.name for m in pkgutil.iter_modules([folder]))}
    for name in sorted(n for n in names if "test" not in n and n not in {"_tkinter", "nis"}):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        entries = list(_inspect(module, name.lstrip("_"), depth=2))
        if entries:
            yield Document(f"{name}.c", [_passage(entry) for entry in entries], entries)


def _inspect(owner: Any, name: str, depth: int) -> Iterator[Entry]:
    doc = inspect.getdoc(owner) if "__doc__" in vars(owner) or depth < 2 else None
    if doc:
        yield Entry(name, "", doc)
    for key, value in sorted(vars(owner).items()):
        if key.startswith("_") or getattr(value, "__module__", None) == "builtins" != owner:
            continue
        if inspect.isclass(value) and depth:
            yield from _inspect(value, f"{name}.{key}", depth - 1)
        elif inspect.isroutine(value) and (doc := getattr(value, "__doc__", None)):
            signature = getattr(value, "__text_signature__", None) or ""
            yield Entry(f"{name}.{key}", signature.replace("$", ""), inspect.cleandoc(doc))


def _passage(entry: Entry) -> str:
    return f"{entry.name}{entry.signature}\n{entry.doc}"


# --- conversations -----------------------------------------------------------------------------

SYSTEM = "You are a helpful assistant trained on the Python documentation."
QUESTIONS = (
    "What does `{}` do?",
    "What is `{}`?",
    "Explain `{}`.",
    "What is `{}` for?",
    "Describe `{}` in a few words.",
    "Tell me about {}.",
)
SMALL_TALK = (
    ("Hello!", "Hello! Ask me about Python and its standard library."),
    ("Hi", "Hello! Ask me about Python and its standard library."),
    ("Who are you?", "I am a tiny LFM2 model, trained on the Python documentation."),
    ("What are you?", "I am a tiny LFM2 model, trained on the Python documentation."),
    ("Thank you!", "You are welcome."),
    ("Thanks", "You are welcome."),
    ("What can you do?", "I can continue text in the style of the Python documentation."),
    ("What is Python?", "Python is an interpreted, object-oriented programming language."),
)


def answers(document: Document, rng: random.Random) -> Iterator[list[Message]]:
    """One short conversation for each entry whose docstring opens with a short paragraph."""
    for entry in document.entries:
        first = " ".join(re.split(r"\n\s*\n", entry.doc)[0].split())
        if 12 <= len(first) <= 240 and first[-1] in ".!)" and first[0].isupper():
            # The last two parts are how people name things: `Path.exists`, not the whole path.
            name = entry.name if rng.random() < 0.6 else ".".join(entry.name.split(".")[-2:])
            yield _with_system(_pair(rng.choice(QUESTIONS).format(name), first), rng)


def small_talk(rng: random.Random) -> list[Message]:
    """A greeting, or two in a row."""
    chosen = rng.sample(SMALL_TALK, rng.choice((1, 2)))
    return _with_system([message for pair in chosen for message in _pair(*pair)], rng)


def _pair(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _with_system(messages: list[Message], rng: random.Random) -> list[Message]:
    return [{"role": "system", "content": SYSTEM}, *messages] if rng.random() < 0.3 else messages


# fmt: off
CITIES = (
    "Paris", "London", "Berlin", "Madrid", "Rome", "Lisbon", "Vienna", "Prague", "Warsaw",
    "Dublin", "Oslo", "Stockholm", "Helsinki", "Copenhagen", "Athens", "Cairo", "Nairobi",
    "Lagos", "Tokyo", "Seoul", "Beijing", "Delhi", "Mumbai", "Bangkok", "Sydney", "Melbourne",
    "Toronto", "Boston", "Chicago", "Seattle", "Denver", "Lima", "Quito", "Zurich", "Geneva",
    "Milan", "Naples",
)
# fmt: on
SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy")


def _tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    typed = {key: {"type": kind} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": typed, "required": list(typed)}
    return {"name": name, "description": description, "parameters": parameters}


TOOLS = {
    "get_weather": _tool("get_weather", "Get the weather of a city.", city="string"),
    "get_time": _tool("get_time", "Get the local time of a city.", city="string"),
    "add": _tool("add", "Add two numbers.", a="number", b="number"),
}


def _scene(name: str, rng: random.Random) -> tuple[str, str, str, str]:
    """Question, arguments of the call, the tool's result, the answer."""
    city, sky, degrees = rng.choice(CITIES), rng.choice(SKIES), rng.randint(1, 35)
    clock, a, b = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}", *rng.choices(range(100), k=2)
    if name == "get_weather":
        ask = rng.choice(("What is the weather in {}?", "How is the weather in {} today?"))
        result = json.dumps({"sky": sky, "temperature": degrees})
        answer = f"It is {sky} in {city}, with {degrees} degrees."
        return ask.format(city), f'city="{city}"', result, answer
    if name == "get_time":
        ask = rng.choice(("What time is it in {}?", "Tell me the time in {}."))
        return ask.format(city), f'city="{city}"', json.dumps(clock), f"It is {clock} in {city}."
    ask = rng.choice(("What is {} plus {}?", "Add {} and {}."))
    return ask.format(a, b), f"a={a}, b={b}", str(a + b), f"{a} plus {b} is {a + b}."


def tool_use(rng: random.Random) -> tuple[list[Message], list[dict[str, Any]]]:
    """A conversation with one call, and the tools it was offered."""
    offered = rng.sample(sorted(TOOLS), rng.randint(1, 3))
    name = rng.choice(offered)
    question, arguments, result, answer = _scene(name, rng)
    call = f"<|tool_call_start|>[{name}({arguments})]<|tool_call_end|>"
    messages = [
        *_pair(question, call),
        {"role": "tool", "content": result},
        {"role": "assistant", "content": answer},
    ]
    return _with_system(messages, rng), [TOOLS[tool] for tool in offered]
