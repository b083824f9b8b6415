"""Whether llama.cpp can load and compute a file: asked before C code sees it.

llama.cpp ends the process (GGML_ASSERT, an exception that nobody catches) where a file breaks a
rule that it takes for granted. Those that are known are in :mod:`lfm2gguf.loadable.rules`; what
nobody foresaw happens in a child process (:mod:`lfm2gguf.loadable.trial`) and is an error here.
"""

from lfm2gguf.loadable.check import check_loadable, check_rules
from lfm2gguf.loadable.rules import (
    AGAIN,
    NAMED_TOKENS,
    NOT_WEIGHTS,
    Contents,
    Problem,
    problems,
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
    "problems",
    "types",
    "vocabulary",
]
