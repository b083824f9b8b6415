"""Folders of mlx-vlm and mlx-audio: the same files as from those that they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lfm2gguf
from lfm2gguf.checkpoint import Checkpoint
from tests.making.checkpoints import save
from tests.making.multimodal import CASES, MLX_VLM, PUBLISHED, VL, Case, make_multimodal, vl_shapes

AUDIO = CASES["LFM2.5-Audio-1.5B"]


def as_mlx_vlm(name: str) -> str:
    """Do what ``sanitize`` of mlx_vlm/models/lfm2_vl/lfm2_vl.py does with names."""
    if "vision_tower" in name:
        name = name.replace("model.", "").replace("vision_encoder", "encoder")
        name = name.replace("vision_embeddings", "embeddings")
        name = name.replace("vision_post_layernorm", "post_layernorm")
    name = name.replace("model.language_model", "language_model.model")
    return name.replace("model.multi_modal_projector", "multi_modal_projector")


def as_mlx_audio(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """Do what ``sanitize`` of mlx_audio/sts/models/lfm_audio/model.py does."""
    if name.startswith("conformer."):
        for old, new in (
            ("conformer.", "audio_encoder."), (".norm_feed_forward1.", ".ff1_norm."),
            (".norm_feed_forward2.", ".ff2_norm."), (".norm_self_att.", ".attn_norm."),
            (".norm_conv.", ".conv_norm."), (".norm_out.", ".final_norm."),
            (".feed_forward1.", ".ff1."), (".feed_forward2.", ".ff2."),
            (".self_attn.linear_q.", ".attn.q_proj."),
            (".self_attn.linear_k.", ".attn.k_proj."),
            (".self_attn.linear_v.", ".attn.v_proj."),
            (".self_attn.linear_out.", ".attn.out_proj."),
            (".self_attn.linear_pos.", ".attn.pos_proj."),
            (".self_attn.pos_bias", ".attn.pos_bias"),
            (".conv.batch_norm.", ".conv.norm."),
        ):  # fmt: skip
            name = name.replace(old, new)
    name = name.replace("audio_adapter.model.", "audio_adapter.layers.")
    if name.startswith("depthformer."):
        name = f"audio_head.{name}"
    if "pointwise_conv" in name and value.ndim == 3:
        value = value.squeeze(-1)
    elif value.ndim == 3:
        value = value.transpose(0, 2, 1)
    elif "pre_encode.conv" in name and value.ndim == 4:
        value = value.transpose(0, 2, 3, 1)
    return name, value


def stored(folder: Path) -> dict[str, np.ndarray]:
    """A checkpoint's floating-point tensors by the names in its file."""
    tensors = Checkpoint.open(folder).tensors
    return {info.name: info.read() for info in tensors.values() if info.dtype != "I64"}


def files(folder: Path, target: Path) -> list[bytes]:
    """The text model's file and the projector's."""
    target.mkdir()
    made = (
        lfm2gguf.convert(folder, target / f"{mmproj}.gguf", "F32", projector=mmproj, jobs=1)
        for mmproj in (False, True)
    )
    return [conversion.files[0].path.read_bytes() for conversion in made]


def test_mlx_vlm(tmp_path: Path) -> None:
    case = Case(VL, vl_shapes(VL, PUBLISHED), beside=CASES["LFM2-VL-450M"].beside)
    before = make_multimodal(case, tmp_path / "a" / "VL")
    after = make_multimodal(case, tmp_path / "b" / "VL")
    tensors = {
        as_mlx_vlm(name): value.transpose(0, 2, 1) if name.endswith("conv.conv.weight") else value
        for name, value in stored(before).items()
    }
    assert tensors.keys() == vl_shapes(VL, MLX_VLM).keys()
    save(after, tensors)
    assert any("mlx-lm" in note for note in Checkpoint.open(after).notes)
    assert files(after, tmp_path / "to-b") == files(before, tmp_path / "to-a")


def test_mlx_audio(tmp_path: Path) -> None:
    before = make_multimodal(AUDIO, tmp_path / "a" / "Audio")
    after = make_multimodal(AUDIO, tmp_path / "b" / "Audio")
    (after / "model-integers.safetensors").unlink()
    gone = ("audio_loss_weights", "codebook_offsets", "num_batches_tracked")
    kept = {name: x for name, x in stored(before).items() if not name.endswith(gone)}
    save(after, dict(as_mlx_audio(name, value) for name, value in kept.items()))
    assert "mlx-audio" in Checkpoint.open(after).notes[-1]
    assert files(after, tmp_path / "to-b") == files(before, tmp_path / "to-a")
