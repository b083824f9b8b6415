"""The keyword arguments of a Runner's methods, as types: editors complete them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from lfm2gguf.chat.tools import ToolLike
from lfm2gguf.options import OptionChanges

FilePath = str | os.PathLike[str]


class Settings(TypedDict, total=False):
    """The keyword arguments with which a Runner is opened; its docstring explains them."""

    device: str
    gpu_layers: int | None
    context: int | None
    parallel: int
    lookup: int
    draft: FilePath | None
    threads: int | None
    state_bytes: int
    parse_markers: bool
    inject_tools: bool
    mmap: bool | None
    adapters: Mapping[str, FilePath] | None
    mmproj: FilePath | None


class AnswerArguments(OptionChanges, total=False):
    """The keyword arguments of an answer in a conversation; :meth:`Runner.stream` explains them."""

    overflow: str
    template: dict[str, Any] | None
    ending: str
    parallel_calls: bool


class ChatArguments(AnswerArguments, total=False):
    """The keyword arguments of :meth:`Runner.stream` and :meth:`Runner.chat`."""

    tools: Sequence[ToolLike] | None
