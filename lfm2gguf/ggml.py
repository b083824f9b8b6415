"""ggml's tensor types and llama.cpp's file types, as enums that carry their data.

Numbers from ggml/include/ggml.h (``enum ggml_type``), ggml/src/ggml-common.h (block
layouts) and include/llama.h (``enum llama_ftype``) of llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

from enum import Enum


class GGMLType(Enum):
    """A tensor type: its id in GGUF files, weights per block, and bytes per block."""

    F32 = (0, 1, 4)
    F16 = (1, 1, 2)
    BF16 = (30, 1, 2)
    Q4_0 = (2, 32, 18)
    Q5_0 = (6, 32, 22)
    Q5_1 = (7, 32, 24)
    Q8_0 = (8, 32, 34)
    Q4_K = (12, 256, 144)
    Q5_K = (13, 256, 176)
    Q6_K = (14, 256, 210)

    def __init__(self, id: int, block_size: int, type_size: int) -> None:
        self.id = id
        self.block_size = block_size
        self.type_size = type_size

    @property
    def is_quantized(self) -> bool:
        """Whether weights are stored in blocks that share a scale."""
        return self.block_size > 1

    @property
    def bits_per_weight(self) -> float:
        """Bits for each weight, the block's scales included."""
        return 8 * self.type_size / self.block_size

    def row_bytes(self, n: int) -> int:
        """Bytes of a row of ``n`` weights; ``n`` must be a multiple of the block size."""
        return n // self.block_size * self.type_size
