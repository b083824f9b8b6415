"""The config of LFM2-Audio's encoder, its adapter and the codes' embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lfm2gguf.errors import UnsupportedError
from lfm2gguf.lfm2.config import get
from lfm2gguf.lfm2.text_part import section, text_config

CODE_VOCABULARY = 2049  # codes of one codebook, and the end of audio


@dataclass(frozen=True)
class AudioConfig:
    """The shape of a FastConformer encoder, its adapter and the codes' embedding."""

    n_mel_bins: int
    n_layers: int
    n_heads: int
    model_size: int
    expansion: int
    channels: int
    kernel: int
    adapter_size: int
    text_size: int
    n_codes: int
    tied: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> AudioConfig:
        """Read and check a config.

        Raises:
            CheckpointError: a key is missing or not a valid number.
            UnsupportedError: a key asks for arithmetic that llama.cpp's encoder does not have.

        """
        encoder = section(config, "encoder")
        _check_assumptions(config, encoder)
        text = get(text_config(config, "lfm"), int, "hidden_size")
        adapter = get(config, list, "adapter_hidden_dims", default=[text])
        if len(adapter) != 1:
            raise UnsupportedError(
                f"config.json: adapter_hidden_dims is {adapter}; llama.cpp's LFM2-Audio has one "
                "hidden layer there"
            )
        return cls(
            n_mel_bins=get(encoder, int, "feat_in"),
            n_layers=get(encoder, int, "n_layers"),
            n_heads=get(encoder, int, "n_heads"),
            model_size=get(encoder, int, "d_model"),
            expansion=get(encoder, int, "ff_expansion_factor", default=4),
            channels=get(encoder, int, "subsampling_conv_channels"),
            kernel=get(encoder, int, "conv_kernel_size"),
            adapter_size=get({"adapter_hidden_dims": adapter[0]}, int, "adapter_hidden_dims"),
            text_size=text,
            n_codes=get(config, int, "codebooks")
            * get(config, int, "audio_vocab_size", default=CODE_VOCABULARY),
            tied=get(config, bool, "tie_audio_embeddings", default=False),
        )


def _check_assumptions(config: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Check what llama.cpp's graph (tools/mtmd/models/conformer.cpp) takes for granted."""
    assumed = {
        "encoder.subsampling": (encoder.get("subsampling"), "dw_striding"),
        "encoder.subsampling_factor": (encoder.get("subsampling_factor"), 8),
        "encoder.self_attention_model": (encoder.get("self_attention_model"), "rel_pos"),
        "encoder.conv_norm_type": (encoder.get("conv_norm_type"), "batch_norm"),
        "encoder.xscaling": (encoder.get("xscaling"), False),
        "encoder.untie_biases": (encoder.get("untie_biases"), True),
        "encoder.causal_downsampling": (encoder.get("causal_downsampling"), False),
        "adapter_use_layer_norm": (config.get("adapter_use_layer_norm"), True),
    }
    for key, (value, known) in assumed.items():
        if value not in (None, known):
            raise UnsupportedError(
                f"config.json: {key} is {value!r}; llama.cpp's LFM2-Audio knows only {known!r}"
            )
