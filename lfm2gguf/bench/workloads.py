"""The requests of the workload suite, and the numbers that keep prompt caches out of them.

The texts under ``texts/`` were written for this project. With LFM2's tokenizer and chat
template they come out at the lengths of the published table (31, 65, 752 and 602 tokens; ``edit``
is not of it, and has 420); with another tokenizer they differ, and reports give the real length.

Each text starts with ``{number}``, six digits that are two tokens in LFM2's vocabulary whatever
they are. A number that no earlier request had makes a prompt unlike every other one from its
first words on, at the same length: a cache of prompts finds nothing. The same number each time
lets it find everything.
"""

from __future__ import annotations

import json
import random
import secrets
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from lfm2gguf.errors import OptionError

WORKLOAD_NAMES = ("chat", "codegen", "rag", "agent", "edit")
NUMBERS = 1_000_000
STRIDE = 619_537  # has no factor in common with NUMBERS: all numbers come before one comes again
# The depth suite through an endpoint: common words, one token each in LFM2's vocabulary.
WORDS = ("time", "water", "light", "stone", "house", "river", "paper", "music", "green", "seven")


@dataclass(frozen=True)
class Workload:
    """A request: its messages, and the lengths it has with LFM2's tokenizer.

    ``concurrency`` lists how many are sent at once, in a row of the published table each.
    """

    name: str
    about: str
    prompt_tokens: int
    output_tokens: int
    template: tuple[tuple[str, str], ...]  # role, content
    concurrency: tuple[int, ...] = (1,)

    def messages(self, number: int) -> list[dict[str, str]]:
        """Give the conversation that starts with a number below a million."""
        return [
            {"role": role, "content": content.replace("{number}", f"{number:06d}")}
            for role, content in self.template
        ]


@cache
def workload(name: str) -> Workload:
    """Read a workload by its name.

    Raises:
        OptionError: no workload has this name.

    """
    if name not in WORKLOAD_NAMES:
        raise OptionError(
            f"workloads: {name!r} is unknown; choose from {', '.join(WORKLOAD_NAMES)}"
        )
    text = (files("lfm2gguf.bench") / "texts" / f"{name}.json").read_text("utf-8")
    data = json.loads(text)
    template = tuple((message["role"], message["content"]) for message in data["messages"])
    at_once = tuple(data.get("concurrency", (1,)))
    lengths = data["prompt_tokens"], data["output_tokens"]
    return Workload(name, data["about"], *lengths, template, at_once)


class Numbers:
    """Six-digit numbers for prompts: never the same twice, or always the same."""

    def __init__(self, *, vary: bool, start: int | None = None) -> None:
        self._vary = vary
        self._next = secrets.randbelow(NUMBERS) if start is None else start

    def take(self, count: int) -> list[int]:
        """Return the numbers of so many prompts."""
        if not self._vary:
            return [self._next] * count
        taken = [(self._next + STRIDE * i) % NUMBERS for i in range(count)]
        self._next = (self._next + STRIDE * count) % NUMBERS
        return taken


def filler(words: int, number: int) -> str:
    """Return a text of so many words that begins unlike the text of any other number."""
    draw = random.Random(number)  # noqa: S311 - a text, not a secret
    return f"{number:06d}: " + " ".join(draw.choices(WORDS, k=words))
