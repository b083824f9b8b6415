"""ggml's tensor types and llama.cpp's file types, as enums that carry their data.

Numbers from ``enum ggml_type`` (ggml/include/ggml.h), the block layouts
(ggml/src/ggml-common.h) and ``enum llama_ftype`` (include/llama.h) of llama.cpp, commit
0c1e57098.
"""

from __future__ import annotations

from enum import Enum


class GGMLType(Enum):
    """A tensor type: its id in GGUF files, weights per block, and bytes per block.

    Every type that ggml can store is listed, so that any file can be inspected; those that
    lfm2gguf can write are the keys of :data:`lfm2gguf.quants.CODECS`.
    """

    F32 = (0, 1, 4)
    F16 = (1, 1, 2)
    Q4_0 = (2, 32, 18)
    Q4_1 = (3, 32, 20)
    Q5_0 = (6, 32, 22)
    Q5_1 = (7, 32, 24)
    Q8_0 = (8, 32, 34)
    Q8_1 = (9, 32, 36)
    Q2_K = (10, 256, 84)
    Q3_K = (11, 256, 110)
    Q4_K = (12, 256, 144)
    Q5_K = (13, 256, 176)
    Q6_K = (14, 256, 210)
    Q8_K = (15, 256, 292)
    IQ2_XXS = (16, 256, 66)
    IQ2_XS = (17, 256, 74)
    IQ3_XXS = (18, 256, 98)
    IQ1_S = (19, 256, 50)
    IQ4_NL = (20, 32, 18)
    IQ3_S = (21, 256, 110)
    IQ2_S = (22, 256, 82)
    IQ4_XS = (23, 256, 136)
    I8 = (24, 1, 1)
    I16 = (25, 1, 2)
    I32 = (26, 1, 4)
    I64 = (27, 1, 8)
    F64 = (28, 1, 8)
    IQ1_M = (29, 256, 56)
    BF16 = (30, 1, 2)
    TQ1_0 = (34, 256, 54)
    TQ2_0 = (35, 256, 66)
    MXFP4 = (39, 32, 17)
    NVFP4 = (40, 64, 36)
    Q1_0 = (41, 128, 18)
    Q2_0 = (42, 64, 18)

    def __init__(self, id: int, block_size: int, type_size: int) -> None:
        self.id = id
        self.block_size = block_size
        self.type_size = type_size

    def __repr__(self) -> str:
        """Return the name alone: the numbers are ggml's."""
        return f"{type(self).__name__}.{self.name}"

    @property
    def is_quantized(self) -> bool:
        """Whether weights are stored in blocks that share a scale."""
        return self.block_size > 1

    @property
    def bits_per_weight(self) -> float:
        """Bits for each weight, the block's scales included."""
        return 8 * self.type_size / self.block_size

    def row_bytes(self, n: int) -> int:
        """Return the bytes of a row of ``n`` weights, a multiple of the block size."""
        return n // self.block_size * self.type_size


TYPE_BY_ID = {type.id: type for type in GGMLType}


class FileType(Enum):
    """What a file as a whole is called: its id in ``general.file_type`` and its default type.

    Which tensors get another type than the default is said in :mod:`lfm2gguf.conversion.mixtures`.
    """

    F32 = (0, GGMLType.F32)
    F16 = (1, GGMLType.F16)
    BF16 = (32, GGMLType.BF16)
    Q8_0 = (7, GGMLType.Q8_0)
    Q6_K = (18, GGMLType.Q6_K)
    Q5_K_M = (17, GGMLType.Q5_K)
    Q5_K_S = (16, GGMLType.Q5_K)
    Q4_K_M = (15, GGMLType.Q4_K)
    Q4_K_S = (14, GGMLType.Q4_K)
    Q4_0 = (2, GGMLType.Q4_0)
    Q4_1 = (3, GGMLType.Q4_1)
    Q5_0 = (8, GGMLType.Q5_0)
    Q5_1 = (9, GGMLType.Q5_1)
    IQ4_NL = (25, GGMLType.IQ4_NL)
    IQ4_XS = (30, GGMLType.IQ4_XS)
    Q3_K_L = (13, GGMLType.Q3_K)
    Q3_K_M = (12, GGMLType.Q3_K)
    Q3_K_S = (11, GGMLType.Q3_K)
    IQ3_M = (27, GGMLType.IQ3_S)
    IQ3_S = (26, GGMLType.IQ3_S)
    IQ3_XS = (22, GGMLType.IQ3_S)
    IQ3_XXS = (23, GGMLType.IQ3_XXS)
    Q2_K = (10, GGMLType.Q2_K)
    Q2_K_S = (21, GGMLType.Q2_K)
    IQ2_M = (29, GGMLType.IQ2_S)
    IQ2_S = (28, GGMLType.IQ2_XS)
    IQ2_XS = (20, GGMLType.IQ2_XS)
    IQ2_XXS = (19, GGMLType.IQ2_XXS)
    IQ1_M = (31, GGMLType.IQ1_M)
    IQ1_S = (24, GGMLType.IQ1_S)
    TQ2_0 = (37, GGMLType.TQ2_0)
    TQ1_0 = (36, GGMLType.TQ1_0)
    Q2_0 = (41, GGMLType.Q2_0)
    Q1_0 = (40, GGMLType.Q1_0)
    MXFP4_MOE = (38, GGMLType.MXFP4)

    def __init__(self, id: int, default: GGMLType) -> None:
        self.id = id
        self.default = default

    def __repr__(self) -> str:
        """Return the name alone: the numbers are ggml's."""
        return f"{type(self).__name__}.{self.name}"
