"""How fast decoding could be: the bytes that one token moves, against the memory's bandwidth.

To decode a token every weight that takes part is read once, and so are the keys and values of
all earlier tokens. Of a mixture of experts only the active ones take part; of the embedding
table, one row, unless the table is the output matrix too. Activations and convolution states
are smaller by orders of magnitude and left out.
"""

from __future__ import annotations

from lfm2gguf.gguf_file import GGUFFile

KV_BYTES = 2  # of a number: llama.cpp keeps keys and values in float16 unless told otherwise
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


def weight_bytes(file: GGUFFile) -> int:
    """Return the bytes of weights read for one token."""
    experts, active = _number(file, "expert_count"), _number(file, "expert_used_count")
    total = 0.0
    for name, tensor in file.tensors.items():
        if name == EMBEDDING and OUTPUT in file.tensors:
            total += tensor.row_bytes
        elif "_exps." in name and experts:
            total += tensor.nbytes * active / experts
        else:
            total += tensor.nbytes
    return round(total)


def cache_bytes(file: GGUFFile, tokens: int) -> int:
    """Return the bytes of keys and values of so many tokens, over all attention layers."""
    heads = file.get(f"{file.architecture}.attention.head_count_kv", 0)
    layers = heads if isinstance(heads, list) else [heads] * _number(file, "block_count")
    n_kv_heads = sum(int(str(getattr(n, "value", n))) for n in layers)
    width = _number(file, "embedding_length") // max(1, _number(file, "attention.head_count"))
    keys = _number(file, "attention.key_length") or width
    values = _number(file, "attention.value_length") or width
    return n_kv_heads * (keys + values) * KV_BYTES * tokens


def roofline(file: GGUFFile, bandwidth: float, depth: int) -> float:
    """Return the tokens/s that a bandwidth in bytes/s allows ``depth`` tokens into a context."""
    return bandwidth / (weight_bytes(file) + cache_bytes(file, depth))


def _number(file: GGUFFile, key: str) -> int:
    value = file.get(f"{file.architecture}.{key}", 0)
    return value if isinstance(value, int) else 0
