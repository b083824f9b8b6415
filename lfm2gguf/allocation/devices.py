"""Which types run fast where, by what llama.cpp has kernels of their own for.

Read in ggml's backends, llama.cpp commit 0c1e57098 (ggml/src):

- cuda: products by integers, of many rows ``ggml_cuda_should_use_mmq`` (ggml-cuda/mmq.cu) and of
  one ``ggml_cuda_mul_mat_vec_q`` (ggml-cuda/mmvq.cu);
- vulkan: the same, ``matmul_..._q8_1`` and ``mul_mat_vec_..._q8_1`` of
  ggml-vulkan/vulkan-shaders/vulkan-shaders-gen.cpp;
- metal: products of a few rows, ``ggml_metal_op_mul_mat`` (ggml-metal/ggml-metal-ops.cpp), which
  IQ4_XS lacks;
- cpu: what ``ggml_repack_get_optimal_repack_type`` (ggml-cpu/repack.cpp) interleaves on some
  processor, and Q3_K, whose levels need no table.

The IQ2 and IQ3 types look every eight or four weights up in a table and are left out everywhere.
"""

from __future__ import annotations

from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import FileType, GGMLType

_K = (
    GGMLType.Q2_K, GGMLType.Q3_K, GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K, GGMLType.Q8_0,
)  # fmt: skip
FAST_TYPES: dict[str, tuple[GGMLType, ...]] = {
    "cpu": _K,
    "cuda": (*_K, GGMLType.IQ4_XS),
    "vulkan": (*_K, GGMLType.IQ4_XS),
    "metal": _K,
}
DEFAULT_DEVICE = "cpu"

# What a file is called whose weights are mostly of a type.
FILE_TYPES = {
    GGMLType.Q2_K: FileType.Q2_K,
    GGMLType.Q3_K: FileType.Q3_K_M,
    GGMLType.Q4_K: FileType.Q4_K_M,
    GGMLType.Q5_K: FileType.Q5_K_M,
    GGMLType.Q6_K: FileType.Q6_K,
    GGMLType.Q8_0: FileType.Q8_0,
    GGMLType.IQ4_XS: FileType.IQ4_XS,
}


def fast_types(device: str) -> tuple[GGMLType, ...]:
    """Return the types to choose from, the smallest first.

    Raises:
        OptionError: the device is not known.

    """
    if device not in FAST_TYPES:
        raise OptionError(f"device (--for): {device!r} is not one of {', '.join(FAST_TYPES)}")
    return tuple(sorted(FAST_TYPES[device], key=lambda type: type.bits_per_weight))
