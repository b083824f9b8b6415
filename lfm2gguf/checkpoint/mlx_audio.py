"""What mlx-audio writes of LFM2-Audio, seen as liquid-audio names it.

The names are those of ``LFM2AudioModel.sanitize`` (Blaizzy/mlx-audio,
mlx_audio/sts/models/lfm_audio/model.py, commit 2200ed66), the other way round. Convolutions have
their channels last, and those over one frame are matrices: the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from lfm2gguf.checkpoint.safetensors import TensorInfo

ENCODER = "audio_encoder."
ROOTS = {
    ENCODER: "conformer.",
    "audio_adapter.layers.": "audio_adapter.model.",
    "audio_head.depthformer.": "depthformer.",
}
PARTS = {
    "ff1_norm": "norm_feed_forward1",
    "ff2_norm": "norm_feed_forward2",
    "attn_norm": "norm_self_att",
    "conv_norm": "norm_conv",
    "final_norm": "norm_out",
    "ff1": "feed_forward1",
    "ff2": "feed_forward2",
    "attn.q_proj": "self_attn.linear_q",
    "attn.k_proj": "self_attn.linear_k",
    "attn.v_proj": "self_attn.linear_v",
    "attn.out_proj": "self_attn.linear_out",
    "attn.pos_proj": "self_attn.linear_pos",
    "attn": "self_attn",
    "conv.norm": "conv.batch_norm",
}
PART = re.compile(rf"(?<=\d\.)({'|'.join(map(re.escape, PARTS))})(?=\.)")
KERNEL = re.compile(r"\.((pointwise|depthwise)_conv\d?|pre_encode\.conv\.\d+)\.weight$")
NOTE = "read as mlx-audio writes a model: names of the audio encoder, convolutions' channels last"


def as_in_liquid_audio(
    tensors: Mapping[str, TensorInfo],
) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Return tensors by liquid-audio's names and shapes, and a note where they were mlx-audio's."""
    if not any(name.startswith(ENCODER) for name in tensors):
        return dict(tensors), ()
    return dict(_renamed(name, info) for name, info in tensors.items()), (NOTE,)


def _renamed(name: str, info: TensorInfo) -> tuple[str, TensorInfo]:
    root = next((root for root in ROOTS if name.startswith(root)), "")
    if not root:
        return name, info
    name = ROOTS[root] + name.removeprefix(root)
    if root != ENCODER:
        return name, info
    name = PART.sub(lambda found: PARTS[found[1]], name, count=1)
    is_kernel = KERNEL.search(name) is not None
    return name, replace(info, shape=_channels_first(info.shape)) if is_kernel else info


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape as PyTorch has it, where the bytes are the same."""
    if len(shape) == 2:
        return (*shape, 1)
    is_last = shape[-1] == 1 or set(shape[1:-1]) == {1}
    if len(shape) > 2 and is_last:
        return (shape[0], shape[-1], *shape[1:-1])
    return shape
