"""What a Hugging Face folder holds: config, tensors, tokenizer, and where it comes from."""

from lfm2gguf.checkpoint.adapter import WEIGHTS as ADAPTER_WEIGHTS
from lfm2gguf.checkpoint.adapter import Adapter, trained_name
from lfm2gguf.checkpoint.chat_template import (
    chat_template_notes,
    chat_templates,
    default_chat_template,
)
from lfm2gguf.checkpoint.folder import Checkpoint, read_json, read_json_list
from lfm2gguf.checkpoint.gguf_repository import DEFAULT_TYPE, fetch_gguf, gguf_files, gguf_path
from lfm2gguf.checkpoint.hub import (
    NEEDED_FILES,
    fetch,
    is_repository,
    one_hub_error,
    refuse_for_local,
    repository_files,
    snapshot_of,
    tokenizer_folder,
)
from lfm2gguf.checkpoint.lowrank import Factor, LowRank
from lfm2gguf.checkpoint.names import unwrapped
from lfm2gguf.checkpoint.safetensors import TensorInfo
from lfm2gguf.checkpoint.tokenizer import Tokenizer, TokenType

__all__ = [
    "ADAPTER_WEIGHTS",
    "DEFAULT_TYPE",
    "NEEDED_FILES",
    "Adapter",
    "Checkpoint",
    "Factor",
    "LowRank",
    "TensorInfo",
    "TokenType",
    "Tokenizer",
    "chat_template_notes",
    "chat_templates",
    "default_chat_template",
    "fetch",
    "fetch_gguf",
    "gguf_files",
    "gguf_path",
    "is_repository",
    "one_hub_error",
    "read_json",
    "read_json_list",
    "refuse_for_local",
    "repository_files",
    "snapshot_of",
    "tokenizer_folder",
    "trained_name",
    "unwrapped",
]
