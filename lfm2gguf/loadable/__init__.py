"""Whether llama.cpp can load and compute a file: asked before C code sees it.

llama.cpp ends the process (GGML_ASSERT, an exception that nobody catches) where a file breaks a
rule that it takes for granted. Those that are known are in :mod:`lfm2gguf.loadable.rules`; what
nobody foresaw happens in a child process (:mod:`lfm2gguf.loadable.trial`) and is an error here.

The names are loaded when they are first used: a load that begins ahead waits for no rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lfm2gguf.deferred import deferred

if TYPE_CHECKING:
    from lfm2gguf.loadable.ahead import loading_ahead
    from lfm2gguf.loadable.check import check_loadable, check_rules
    from lfm2gguf.loadable.rules import (
        AGAIN,
        NAMED_TOKENS,
        NOT_WEIGHTS,
        Contents,
        Problem,
        problems,
        starts_of,
        types,
        vocabulary,
    )
    from lfm2gguf.loadable.trial import Trial

__all__ = [
    "AGAIN",
    "NAMED_TOKENS",
    "NOT_WEIGHTS",
    "Contents",
    "Problem",
    "Trial",
    "check_loadable",
    "check_rules",
    "loading_ahead",
    "problems",
    "starts_of",
    "types",
    "vocabulary",
]

__getattr__ = deferred(
    __name__,
    {
        "ahead": "loading_ahead",
        "check": "check_loadable check_rules",
        "rules": "AGAIN NAMED_TOKENS NOT_WEIGHTS Contents Problem problems starts_of types "
        "vocabulary",
        "trial": "Trial",
    },
)
