"""Running a model: chat, streaming, tools, many requests at once."""

from lfm2gguf.chat.tool_calls import BadCall, ToolCall
from lfm2gguf.llamacpp import DeviceReport
from lfm2gguf.options import Options
from lfm2gguf.runner.answer.grammar import call_grammar, text_grammar
from lfm2gguf.runner.answer.pieces import Piece
from lfm2gguf.runner.answer.stream import Reply, Stream
from lfm2gguf.runner.arguments import ChatArguments
from lfm2gguf.runner.embeddings import maxsim
from lfm2gguf.runner.engine.memory import MemoryUse
from lfm2gguf.runner.engine.request import Load, TokenLogprob, Usage
from lfm2gguf.runner.placement import check_file, check_memory, place
from lfm2gguf.runner.runner import Runner
from lfm2gguf.sampling import default_options

__all__ = [
    "BadCall",
    "ChatArguments",
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
    "check_file",
    "check_memory",
    "default_options",
    "maxsim",
    "place",
    "text_grammar",
]
