"""What a Hugging Face folder holds: config, tensors, tokenizer, and where it comes from."""

from lfm2gguf.checkpoint.adapter import Adapter, trained_name
from lfm2gguf.checkpoint.folder import Checkpoint
from lfm2gguf.checkpoint.hub import Source, fetch, locate, repository_files
from lfm2gguf.checkpoint.lowrank import Factor, LowRank
from lfm2gguf.checkpoint.safetensors import TensorInfo
from lfm2gguf.checkpoint.tokenizer import Tokenizer, TokenType

__all__ = [
    "Adapter",
    "Checkpoint",
    "Factor",
    "LowRank",
    "Source",
    "TensorInfo",
    "TokenType",
    "Tokenizer",
    "fetch",
    "locate",
    "repository_files",
    "trained_name",
]
