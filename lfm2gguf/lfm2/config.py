"""LFM2's config.json, in whatever spelling, as one typed value.

The spellings are those of transformers 4.54 to 5 (models/lfm2/configuration_lfm2.py) and of
Liquid AI's own files. A key that changes the arithmetic and has a value that the GGUF cannot
express stops the conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lfm2gguf.errors import CheckpointError, UnsupportedError

_REQUIRED = object()
COPY = "correct it, or copy the file from the model that this one was made from"
MAX_FLOAT = 3.4028234663852886e38  # of float32, as a GGUF has them
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS, src/llama-hparams.h of llama.cpp, commit 0c1e57098


@dataclass(frozen=True)
class Lfm2Config:
    """The shape of a dense LFM2; ``layer_types`` has "conv" or "full_attention" per layer."""

    hidden_size: int
    layer_types: tuple[str, ...]
    feed_forward: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    conv_cache: int
    norm_eps: float
    rope_theta: float
    context_length: int
    tied: bool
    head_dim: int
    states_head_dim: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Lfm2Config:
        """Read and check a config.

        Raises:
            CheckpointError: a key is missing, or two of them contradict each other.
            UnsupportedError: a key asks for arithmetic that llama.cpp's LFM2 does not have.

        """
        _check_assumptions(config)
        hidden, heads = get(config, int, "hidden_size"), get(config, int, "num_attention_heads")
        head_dim = get(config, int, "head_dim", default=hidden // heads if heads else 0)
        if head_dim * heads != hidden:
            raise UnsupportedError(
                f"config.json: {heads} heads of {head_dim} do not make up hidden_size {hidden}; "
                "llama.cpp's LFM2 cannot represent other head sizes"
            )
        return cls(
            hidden_size=hidden,
            layer_types=_layer_types(config),
            feed_forward=_feed_forward(config),
            n_heads=heads,
            n_kv_heads=get(config, int, "num_key_value_heads", default=heads),
            vocab_size=get(config, int, "vocab_size"),
            conv_cache=get(config, int, "conv_L_cache", default=3),
            norm_eps=get(config, float, "norm_eps", "block_norm_eps", default=1e-5),
            rope_theta=_rope_theta(config),
            context_length=get(config, int, "max_position_embeddings", default=128_000),
            tied=is_tied(config),
            head_dim=head_dim,
            states_head_dim=config.get("head_dim") is not None,
        )


def is_tied(config: Mapping[str, Any]) -> bool:
    """Say whether the output head is the embedding.

    Raises:
        CheckpointError: the key that says so is not a bool.

    """
    tied: bool = get(config, bool, "tie_embedding", "tie_word_embeddings", default=True)
    return tied


def get(
    config: Mapping[str, Any],
    kind: type,
    *names: str,
    default: Any = _REQUIRED,
    least: int = 1,
    file: str = "config.json",
) -> Any:
    """Return the first of the spellings that is there; an int may stand for a float.

    ``file`` is what the config was read from, ``least`` the smallest int that is valid.

    Raises:
        CheckpointError: the value has another type or is too small, or none is there.

    """
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if kind is float and type(value) is int and abs(value) <= MAX_FLOAT:
            return float(value)
        wrong = isinstance(value, float) and not abs(value) <= MAX_FLOAT  # NaN, too
        wrong |= not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        if wrong or (kind is int and value < least):
            raise CheckpointError(
                f"{file}: {name} is {value!r}, not a valid {kind.__name__}; {COPY}"
            )
        return value
    if default is _REQUIRED:
        raise CheckpointError(f"{file}: {' or '.join(names)} is missing; {COPY}")
    return default


def _layer_types(config: Mapping[str, Any]) -> tuple[str, ...]:
    n = get(config, int, "num_hidden_layers")
    if n > MAX_LAYERS:
        raise UnsupportedError(
            f"config.json: num_hidden_layers is {n}; llama.cpp has room for {MAX_LAYERS} layers"
        )
    kinds = get(config, list, "layer_types", default=None)
    if kinds is None:
        full = get(config, list, "full_attn_idxs")
        kinds = ["full_attention" if i in full else "conv" for i in range(n)]
    if len(kinds) != n:
        raise CheckpointError(
            f"config.json: has {len(kinds)} layer_types for {n} num_hidden_layers; {COPY}"
        )
    if unknown := set(map(str, kinds)) - {"conv", "full_attention"}:
        raise UnsupportedError(
            f"config.json: layer_types has {sorted(unknown)[0]!r}; llama.cpp's LFM2 knows only "
            "'conv' and 'full_attention'"
        )
    return tuple(kinds)


def _feed_forward(config: Mapping[str, Any]) -> int:
    """Compute the width of the feed-forward layers as Lfm2MLP in transformers adjusts it."""
    width: int = get(config, int, "block_ff_dim", "intermediate_size", default=12288)
    if not get(config, bool, "block_auto_adjust_ff_dim", default=True):
        return width
    width = int(2 * width / 3)
    if (multiplier := get(config, float, "block_ffn_dim_multiplier", default=1.0)) is not None:
        width = int(multiplier * width)
    multiple: int = get(config, int, "block_multiple_of", default=256)
    return -(-width // multiple) * multiple


def _rope_theta(config: Mapping[str, Any]) -> float:
    """Return the base of rotary frequencies, wherever it stands; all that say it must agree."""
    said = {"": config}
    for key in ("rope_scaling", "rope_parameters"):  # before transformers 5, and since
        said |= _rope_settings(key, get(config, dict, key, default={}))
    for key, rope in said.items():
        kind = rope.get("rope_type", rope.get("type")) if key else None
        if kind not in ("default", None):
            raise UnsupportedError(
                f"config.json: {key} scales rotary positions by {kind!r}; LFM2 members use "
                "'default'"
            )
        if (part := rope.get("partial_rotary_factor")) not in (None, 1):
            raise UnsupportedError(
                f"config.json: {key or 'it'} rotates {part!r} of each head "
                "(partial_rotary_factor); llama.cpp's LFM2 rotates the whole"
            )
    thetas = {
        f"{key}.rope_theta".lstrip("."): get(rope, float, "rope_theta")
        for key, rope in said.items()
        if rope.get("rope_theta") is not None
    }
    if len(set(thetas.values())) > 1:
        found = " and ".join(f"{key} is {theta:g}" for key, theta in thetas.items())
        raise CheckpointError(f"config.json: {found}; give rope_theta once, as it was trained")
    return float(next(iter(thetas.values()), 1_000_000.0))


def _rope_settings(key: str, rope: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return settings by where they stand: they may be given for each kind of layer."""
    per_layer = {f"{key}.{kind}": own for kind, own in rope.items() if isinstance(own, dict)}
    return {key: rope, **per_layer}


def _check_assumptions(config: Mapping[str, Any]) -> None:
    """Check what llama.cpp's LFM2 (src/models/lfm2.cpp, commit 0c1e57098) takes for granted."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    assumed = {
        "conv_bias": False,
        "block_use_swiglu": True,
        "use_pos_enc": True,
        "is_causal": True,
        "hidden_act": "silu",
        "num_heads": heads,
        "block_dim": hidden,
        "conv_dim": hidden,
        "conv_dim_out": hidden,
    }
    for key, value in assumed.items():
        if config.get(key) not in (None, value):
            raise UnsupportedError(
                f"config.json: {key} is {config[key]!r}; llama.cpp's LFM2 knows only {value!r}"
            )
