"""Counting tokens with a file's own tokenizer and chat template."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from lfm2gguf.runner import Runner


class Counter:
    """Opens the file at the first count: most servers count for themselves."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self._path, device="cpu", context=64, parallel=1)

    def prompt(self, messages: list[dict[str, str]]) -> int:
        """Return the tokens of a conversation, template and all."""
        return self._runner.count_tokens(messages)

    def text(self, text: str) -> int:
        """Return the tokens of an answer's text."""
        return len(self._runner.tokens.encode(text, bos=False, special=False))

    def close(self) -> None:
        """Close the file if it was opened."""
        if "_runner" in self.__dict__:
            self._runner.close()
