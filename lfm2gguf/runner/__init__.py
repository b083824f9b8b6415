"""Running a model: chat, streaming, tools, many requests at once."""

from lfm2gguf.runner.answer import Piece
from lfm2gguf.runner.calls import BadCall, ToolCall
from lfm2gguf.runner.devices import DeviceReport
from lfm2gguf.runner.embeddings import maxsim
from lfm2gguf.runner.forms import call_grammar
from lfm2gguf.runner.memory import MemoryUse
from lfm2gguf.runner.options import Options
from lfm2gguf.runner.request import Load, TokenLogprob, Usage
from lfm2gguf.runner.runner import Runner
from lfm2gguf.runner.stream import Reply, Stream

__all__ = [
    "BadCall",
    "DeviceReport",
    "Load",
    "MemoryUse",
    "Options",
    "Piece",
    "Reply",
    "Runner",
    "Stream",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "call_grammar",
    "maxsim",
]
