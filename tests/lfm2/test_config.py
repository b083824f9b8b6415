"""Every spelling of a config is the same model."""

from __future__ import annotations

from typing import Any

import pytest

from lfm2gguf.errors import CheckpointError, UnsupportedError
from lfm2gguf.lfm2 import Lfm2Config
from lfm2gguf.reference import ReferenceConfig
from tests.making.checkpoints import BASE

SPELLINGS: dict[str, dict[str, Any]] = {
    "layer types by index": {"layer_types": None, "full_attn_idxs": [1]},
    "both kinds of layer types": {"full_attn_idxs": [1]},
    "tie_embedding": {"tie_word_embeddings": None, "tie_embedding": True},
    "tie_embedding wins": {"tie_word_embeddings": False, "tie_embedding": True},
    "tied by default": {"tie_word_embeddings": None},
    "rope_theta": {"rope_parameters": None, "rope_theta": 1_000_000},
    "rope_theta beside its type": {
        "rope_parameters": {"rope_type": "default"}, "rope_theta": 1_000_000.0,
    },
    "rope by default": {"rope_parameters": None},
    "block_ff_dim": {"intermediate_size": None, "block_ff_dim": 96},
    "block_ff_dim wins": {"intermediate_size": 1, "block_ff_dim": 96},
    "block_norm_eps": {"norm_eps": None, "block_norm_eps": 1e-5},
    "eps as a number": {"norm_eps": None},
    "torch_dtype": {"torch_dtype": "bfloat16"},
    "dtype": {"dtype": "bfloat16"},
    "several ends": {"eos_token_id": [7, 2]},
    "what is assumed, said": {
        "conv_bias": False, "block_use_swiglu": True, "use_pos_enc": True, "num_heads": 4,
        "block_dim": 64, "conv_dim": 64, "conv_dim_out": 64, "hidden_act": "silu",
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(changes: dict[str, Any]) -> None:
    assert Lfm2Config.read(BASE | changes) == Lfm2Config.read(BASE)


@pytest.mark.parametrize(
    ("given", "multiplier", "multiple", "width"),
    [
        (12288, 1.0, 256, 8192),  # LFM2-1.2B
        (6656, 1.0, 256, 4608),  # LFM2-350M
        (10752, 1.0, 256, 7168),
        (10240, 1.0, 256, 6912),  # LFM2-700M
        (1000, 1.5, 10, 1000),
        (1000, None, 7, 672),
    ],
)
def test_the_feed_forward_width(given: int, multiplier: Any, multiple: int, width: int) -> None:
    changes = {
        "intermediate_size": given,
        "block_auto_adjust_ff_dim": True,
        "block_ffn_dim_multiplier": multiplier,
        "block_multiple_of": multiple,
    }
    assert Lfm2Config.read(BASE | changes).feed_forward == width


@pytest.mark.parametrize(
    "changes",
    [
        {"conv_bias": True},
        {"use_pos_enc": False},
        {"is_causal": False},
        {"block_use_swiglu": False},
        {"conv_dim": 32},
        {"head_dim": 32},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0}}},
        {"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}},
        {"num_hidden_layers": 513, "layer_types": None, "full_attn_idxs": [0]},
    ],
    ids=str,
)
def test_arithmetic_that_llama_cpp_does_not_have(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        Lfm2Config.read(BASE | changes)


@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "vocab_size"])
@pytest.mark.parametrize("value", [None, 0, -1, "8", True, 1.5, [4]])
def test_values_that_are_none(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=key):
        Lfm2Config.read(BASE | {key: value})


@pytest.mark.parametrize(
    "place",
    [
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_theta": 5e5}},
        {"rope_scaling": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_parameters": {"full_attention": {"rope_theta": 5e5, "rope_type": "default"}}},
        {"rope_scaling": {"rope_theta": 5e5}, "rope_theta": 500_000},
    ],
    ids=str,
)
def test_rope_theta_wherever_it_stands(place: dict[str, Any]) -> None:
    """Converter and reference find it by code of their own."""
    config = BASE | {"rope_parameters": None} | place
    assert Lfm2Config.read(config).rope_theta == 5e5
    assert ReferenceConfig.from_huggingface(config).rope_theta == 5e5


@pytest.mark.parametrize(
    "other",
    [
        {"rope_theta": 5e5},
        {"rope_scaling": {"rope_theta": 5e5}},
        {"rope_parameters": {"rope_theta": 1e6, "full_attention": {"rope_theta": 5e5}}},
    ],
    ids=str,
)
def test_places_that_disagree(other: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"rope_theta is .* and .*rope_theta is "):
        Lfm2Config.read(BASE | other)
    with pytest.raises(UnsupportedError, match="rope_theta"):
        ReferenceConfig.from_huggingface(BASE | other)
