"""The config of LFM2-VL's tower and projector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lfm2gguf.errors import UnsupportedError
from lfm2gguf.lfm2.config import get
from lfm2gguf.lfm2.text_part import section, text_config


@dataclass(frozen=True)
class VisionConfig:
    """The shape of a SigLIP 2 tower and its projector."""

    hidden_size: int
    feed_forward: int
    n_layers: int
    n_heads: int
    patch_size: int
    n_channels: int
    n_patches: int
    norm_eps: float
    downsample: int
    projector_size: int
    projector_norm: bool
    text_size: int
    feature_layer: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> VisionConfig:
        """Read and check a config; defaults are those of transformers 5.

        Raises:
            CheckpointError: a key is missing or not a valid number.
            UnsupportedError: a key asks for arithmetic that llama.cpp's projector does not have.

        """
        vision = section(config, "vision_config")
        _check_assumptions(config, vision)
        n_layers = get(vision, int, "num_hidden_layers", default=12)
        return cls(
            hidden_size=get(vision, int, "hidden_size", default=768),
            feed_forward=get(vision, int, "intermediate_size", default=3072),
            n_layers=n_layers,
            n_heads=get(vision, int, "num_attention_heads", default=12),
            patch_size=get(vision, int, "patch_size", default=16),
            n_channels=get(vision, int, "num_channels", default=3),
            n_patches=get(vision, int, "num_patches", default=256),
            norm_eps=get(vision, float, "layer_norm_eps", default=1e-6),
            downsample=get(config, int, "downsample_factor", default=2),
            projector_size=get(config, int, "projector_hidden_size", default=2560),
            projector_norm=get(config, bool, "projector_use_layernorm", default=True),
            text_size=get(text_config(config, "text_config"), int, "hidden_size"),
            feature_layer=_feature_layer(config, n_layers),
        )


def _feature_layer(config: Mapping[str, Any], n_layers: int) -> int:
    """Read the layer whose output is used, counted from the end, or a list of it alone."""
    key = "vision_feature_layer"
    given = config.get(key)
    one = given[0] if isinstance(given, list) and len(given) == 1 else given
    layer: int = get({key: one}, int, key, default=-1, least=-n_layers)
    if layer >= 0:
        raise UnsupportedError(
            f"config.json: {key} is {layer}; llama.cpp's LFM2-VL takes a layer counted from the "
            "end, such as -1"
        )
    return layer


def _check_assumptions(config: Mapping[str, Any], vision: Mapping[str, Any]) -> None:
    """Check what llama.cpp's loader and graph (tools/mtmd/models/siglip.cpp) take for granted."""
    assumed = {
        "vision_config.hidden_act": (vision.get("hidden_act"), "gelu_pytorch_tanh"),
        "projector_hidden_act": (config.get("projector_hidden_act"), "gelu"),
        "projector_bias": (config.get("projector_bias"), True),
    }
    for key, (value, known) in assumed.items():
        if value not in (None, known):
            raise UnsupportedError(
                f"config.json: {key} is {value!r}; llama.cpp's LFM2-VL knows only {known!r}"
            )
