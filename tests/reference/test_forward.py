"""The reference forward pass against slow, independent forms of the same mathematics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import TensorError, UnsupportedError
from lfm2gguf.reference import forward, operations
from lfm2gguf.reference.forward import Reference
from lfm2gguf.reference.weights import Array, ReferenceConfig, Weights, gguf_names
from tests.making.realdata import real


def random_weights(seed: int = 0, *, tied: bool = True) -> Weights:
    """A small random LFM2: two convolutions around one attention layer."""
    rng = np.random.default_rng(seed)
    hidden, feed, width, vocabulary = 32, 48, 8, 100
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.embedding_norm.weight": (hidden,),
    }
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    layers = ("conv", "full_attention", "conv")
    for i, kind in enumerate(layers):
        own: dict[str, tuple[int, ...]] = {
            "operator_norm": (hidden,),
            "ffn_norm": (hidden,),
            "feed_forward.w1": (feed, hidden),
            "feed_forward.w2": (hidden, feed),
            "feed_forward.w3": (feed, hidden),
        }
        if kind == "conv":
            own |= {
                "conv.in_proj": (3 * hidden, hidden),
                "conv.conv": (hidden, 1, 3),
                "conv.out_proj": (hidden, hidden),
            }
        else:
            own |= {
                "self_attn.q_proj": (4 * width, hidden),
                "self_attn.k_proj": (2 * width, hidden),
                "self_attn.v_proj": (2 * width, hidden),
                "self_attn.out_proj": (hidden, 4 * width),
                "self_attn.q_layernorm": (width,),
                "self_attn.k_layernorm": (width,),
            }
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in own.items()}
    tensors = {
        name: rng.standard_normal(shape, dtype=np.float32) / np.float32(shape[-1] ** 0.5)
        for name, shape in shapes.items()
    }
    config = ReferenceConfig(layers, 4, 2, 1e-5, 1e4, tied)
    return Weights(config, shapes, lambda name, start, stop: tensors[name][start:stop])


def everything(sequences: list[Any]) -> list[Any]:
    return [np.arange(len(ids)) for ids in sequences]


def test_attention_equals_the_textbook_loop() -> None:
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((37, n, 8), dtype=np.float32) for n in (6, 2, 2))
    got = operations.causal_attention(q, k, v).reshape(37, 6, 8)
    for t in range(37):
        for head in range(6):
            scores = k[: t + 1, head // 3] @ q[t, head] / np.sqrt(8)
            p = np.exp(scores - scores.max())
            expected = (p / p.sum()) @ v[: t + 1, head // 3]
            np.testing.assert_allclose(got[t, head], expected, rtol=1e-5, atol=1e-6)


def test_attention_does_not_depend_on_the_block_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    q, k, v = (rng.standard_normal((70, n, 8), dtype=np.float32) for n in (4, 2, 2))
    whole = operations.causal_attention(q, k, v)
    monkeypatch.setattr(operations, "SCORE_BYTES", 4 * 4 * 70 * 16)
    np.testing.assert_allclose(operations.causal_attention(q, k, v), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_convolution_equals_numpy_convolve(length: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((length, 5), dtype=np.float32)
    kernel = rng.standard_normal((5, 3), dtype=np.float32)
    got = operations.causal_convolution(x, kernel)
    for channel in range(5):
        expected = np.convolve(x[:, channel], kernel[channel, ::-1])[:length]
        np.testing.assert_allclose(got[:, channel], expected, rtol=1e-5, atol=1e-6)


def test_rotation_is_a_complex_product_and_keeps_relative_positions() -> None:
    rng = np.random.default_rng(4)
    q, k = rng.standard_normal((2, 1, 1, 8), dtype=np.float32)
    cos, sin = operations.rotary_tables(50, 8, 1e4)

    def at(x: Array, position: int) -> Array:
        return operations.rotate(x, cos[position:], sin[position:]).ravel()

    turned = at(q, 5)
    angle = 5 / 1e4 ** (np.arange(0, 8, 2) / 8)
    expected = (q.ravel()[:4] + 1j * q.ravel()[4:]) * np.exp(1j * angle)
    np.testing.assert_allclose(turned, [*expected.real, *expected.imag], rtol=1e-5)
    assert at(q, 5) @ at(k, 2) == pytest.approx(at(q, 45) @ at(k, 42), rel=1e-4)


def test_swiglu_survives_large_arguments() -> None:
    gate = np.array([[-200.0, -1.0, 0.0, 1.0, 200.0]], np.float32)
    operations.swiglu(gate, np.full((1, 5), 2, np.float32))
    np.testing.assert_allclose(gate, [[0, -0.5378828, 0, 1.4621172, 400]], rtol=1e-6)


def test_sequences_are_independent_of_their_company(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Reference(random_weights())
    rng = np.random.default_rng(5)
    sequences = [rng.integers(0, 100, n).astype(np.int32) for n in (9, 1, 30, 2)]
    together = model.states(sequences, everything(sequences))
    alone = [model.states([ids], [np.arange(len(ids))]) for ids in sequences]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=2e-4, atol=2e-5)
    monkeypatch.setattr(forward, "GROUP_TOKENS", 16)
    monkeypatch.setattr(forward, "LINEAR_TOKENS", 7)
    in_groups = model.states(sequences, everything(sequences))
    np.testing.assert_allclose(together, in_groups, rtol=2e-4, atol=2e-5)


def test_later_tokens_change_nothing_before_them() -> None:
    model = Reference(random_weights())
    ids = np.arange(40, dtype=np.int32)
    other = ids.copy()
    other[25:] = 7
    first, second = (model.states([s], [np.arange(40)]) for s in (ids, other))
    np.testing.assert_allclose(first[:25], second[:25], rtol=1e-5, atol=1e-6)
    assert np.abs(first[25:] - second[25:]).max() > 0.1


def test_only_the_asked_positions_come_back_in_order() -> None:
    model = Reference(random_weights())
    sequences = [np.arange(10, dtype=np.int32), np.arange(20, dtype=np.int32)]
    all_states = model.states(sequences, everything(sequences))
    some = model.states(sequences, [np.array([3, 9]), np.array([0, 19])])
    np.testing.assert_allclose(some, all_states[[3, 9, 10, 29]], rtol=1e-5)


def test_the_observer_sees_the_input_of_every_linear_layer() -> None:
    weights = random_weights()
    seen: dict[str, int] = {}

    def observe(name: str, x: Array) -> None:
        assert x.shape[1] == weights.shapes[name][1]
        seen[name] = seen.get(name, 0) + len(x)

    Reference(weights, observe).states([np.arange(40, dtype=np.int32)], [np.arange(1)])
    linear = {n for n, s in weights.shapes.items() if len(s) == 2} - {"model.embed_tokens.weight"}
    assert seen == dict.fromkeys(linear, 40)


def test_an_untied_head_is_used_and_a_missing_one_is_reported() -> None:
    untied = random_weights(tied=False)
    assert untied.head == "lm_head.weight"
    shapes = {n: s for n, s in untied.shapes.items() if n != "lm_head.weight"}
    with pytest.raises(TensorError, match=r"lm_head\.weight is missing"):
        _ = Weights(untied.config, shapes, untied.read_rows).head


def test_logits_equal_one_product_over_the_whole_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "VOCABULARY_ROWS", 33)
    weights = random_weights()
    states = np.random.default_rng(6).standard_normal((5, 32), dtype=np.float32)
    head = weights.read("model.embed_tokens.weight")
    np.testing.assert_allclose(
        Reference(weights).logits(states), states @ head.T, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("bad", [-1, 100])
def test_a_token_outside_the_embedding_is_refused(bad: int) -> None:
    with pytest.raises(TensorError, match="outside the embedding"):
        Reference(random_weights()).states([np.array([1, bad], np.int32)], [np.arange(2)])


def test_a_nan_in_a_weight_is_reported() -> None:
    weights = random_weights()

    def read(name: str, start: int, stop: int | None) -> Array:
        rows = weights.read_rows(name, start, stop).copy()
        if name == "model.layers.1.feed_forward.w2.weight":
            rows[0, 0] = np.nan
        return rows

    with pytest.raises(TensorError, match="NaN"):
        Reference(Weights(weights.config, weights.shapes, read)).states(
            [np.arange(4, dtype=np.int32)], [np.arange(4)]
        )


BASE = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("extra", "field", "expected"),
    [
        ({"full_attn_idxs": [1]}, "layers", ("conv", "full_attention", "conv")),
        ({"layer_types": ["full_attention", "conv"]}, "layers", ("full_attention", "conv")),
        ({"block_norm_eps": 0.5}, "norm_eps", 0.5),
        ({"block_norm_eps": 0.5, "norm_eps": 0.25}, "norm_eps", 0.25),
        ({}, "norm_eps", 1e-5),
        ({"rope_theta": 5.0}, "rope_theta", 5.0),
        ({"rope_parameters": {"rope_theta": 6.0}}, "rope_theta", 6.0),
        ({"tie_embedding": False, "tie_word_embeddings": True}, "tied", False),
        ({"tie_word_embeddings": False}, "tied", False),
        ({}, "tied", True),
    ],
)
def test_every_spelling_of_the_config(extra: dict[str, Any], field: str, expected: Any) -> None:
    assert getattr(ReferenceConfig.from_huggingface(BASE | extra), field) == expected


@pytest.mark.parametrize(
    "extra", [{"model_type": "lfm2_vl"}, {"rope_parameters": {"rope_type": "yarn"}}]
)
def test_what_it_does_not_know_is_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        ReferenceConfig.from_huggingface(BASE | extra)


@pytest.mark.parametrize("name", ["LFM2-1.2B", "LFM2-350M", "LFM2.5-1.2B-JP"])
def test_real_configs(name: str) -> None:
    config = ReferenceConfig.from_huggingface(json.loads(real(f"configs/{name}.json").read_text()))
    assert [i for i, kind in enumerate(config.layers) if kind != "conv"] == [2, 5, 8, 10, 12, 14]
    assert (config.norm_eps, config.rope_theta, config.tied) == (1e-5, 1e6, True)


def test_names_of_a_file_are_unique() -> None:
    names = gguf_names(3)
    assert len(set(names.values())) == len(names)
    assert names["model.layers.2.feed_forward.w2.weight"] == "blk.2.ffn_down.weight"


GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_transformers.json"
EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-lfm2"


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the example model and its values are absent")
def test_logits_equal_transformers() -> None:
    """Golden values of make_tiny_transformers.py: float32, eager attention."""
    golden = json.loads(GOLDEN.read_text())["logits"]
    ids = np.array(golden["ids"] if isinstance(golden, dict) else golden, np.int32)
    with np.load(GOLDEN.with_suffix(".npz")) as arrays:
        positions, expected = arrays["positions"], arrays["logits"]
    model = Reference(Weights.from_checkpoint(Checkpoint.open(EXAMPLE)))
    found = model.logits(model.states([ids], [positions]))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_what_no_position_asked_for_sees_is_left_out_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = Reference(random_weights())
    rng = np.random.default_rng(5)
    sequences = [rng.integers(0, 100, n).astype(np.int32) for n in (30, 9, 12, 1)]
    positions = [np.array([17, 25]), np.array([0, 1]), np.arange(0), np.array([0])]
    whole = np.split(reference.states(sequences, everything(sequences)), [30, 39, 51])
    rows, own = [], reference._feed_forward

    def counted(layer: str, x: Array) -> None:
        rows.append(len(x))
        own(layer, x)

    monkeypatch.setattr(reference, "_feed_forward", counted)
    found = reference.states(sequences, positions)
    expected = np.concatenate([states[p] for states, p in zip(whole, positions, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # From two tokens before the first asked for, what the last convolution sees, to two behind.
    assert rows == [52, 13 + 4 + 0 + 1, 13 + 4 + 0 + 1]
