"""Plans of real models, by their configs: no weight is read, so the files hold none."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf.conversion import Draft, plan
from tests.benchmarks.make_checkpoint import shapes
from tests.making.checkpoints import tokenizer, write_json
from tests.making.realdata import real

# Published: tensors by type, and bytes where the whole file's are known. The tokenizer here is
# a small one, so that the files are smaller than theirs by their vocabularies' text.
PUBLISHED = {
    ("partial/LFM2-8B-A1B", "Q4_K_M"): {"F32": 123, "Q4_K": 118, "Q6_K": 15},
    ("partial/LFM2.5-8B-A1B", "Q4_K_M"): {"F32": 123, "Q4_K": 118, "Q6_K": 15},
    ("LFM2.5-1.2B-Instruct", "Q4_0"): {"Q4_0": 92, "F32": 55, "Q6_K": 1},
}


def drafted(config: dict[str, Any], folder: Path, type: str) -> Draft:
    """The draft for a checkpoint whose one file is a hole behind its header."""
    folder.mkdir()
    write_json(folder / "config.json", config)
    for name, content in tokenizer().items():
        write_json(folder / name, content)
    header, offset = {}, 0
    for name, shape in shapes(config).items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    planned = plan(folder, folder, type)
    assert not planned.left_out
    return planned.drafts[0]


@pytest.mark.parametrize(("name", "type"), PUBLISHED)
def test_the_published_counts_come_out(name: str, type: str, tmp_path: Path) -> None:
    path = real(f"configs/{name}.json")
    draft = drafted(json.loads(path.read_text()), tmp_path / "model", type)
    assert draft.type_counts == PUBLISHED[name, type]
    assert draft.layout.size > sum(tensor.nbytes for tensor in draft.tensors)


# Billions of weights that the names say, and as they come out.
TEXT_MODELS = {
    "LFM2-350M": 0.354,
    "LFM2-1.2B": 1.170,
    "LFM2.5-1.2B-Base": 1.170,
    "LFM2.5-1.2B-Instruct": 1.170,
    "LFM2.5-1.2B-JP": 1.170,
    "partial/LFM2.5-230M": 0.230,
    "partial/LFM2.5-350M": 0.354,
    "partial/LFM2.5-2.6B": 2.697,
    "partial/LFM2-8B-A1B": 8.340,
    "partial/LFM2.5-8B-A1B": 8.468,
}


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_every_tensor_of_a_real_shape_has_its_place(name: str, tmp_path: Path) -> None:
    path = real(f"configs/{name}.json")
    config = json.loads(path.read_text())
    draft = drafted(config, tmp_path / "model", "Q4_K_M")
    assert draft.n_weights == sum(map(math.prod, shapes(config).values()))
    assert round(draft.n_weights / 1e9, 3) == TEXT_MODELS[name]


def test_the_700m(tmp_path: Path) -> None:
    """Of its config only layers and feed-forward width are known; the rest is as in its name."""
    path = real("configs/LFM2-350M.json")
    sizes = dict.fromkeys(("hidden_size", "block_dim", "conv_dim", "conv_dim_out"), 1536)
    heads = dict.fromkeys(("num_attention_heads", "num_heads"), 24)
    wider = {**sizes, **heads, "block_ff_dim": 10240}
    config = {**json.loads(path.read_text()), **wider}
    config.pop("intermediate_size", None)
    draft = drafted(config, tmp_path / "LFM2-700M", "Q4_K_M")
    assert draft.metadata["lfm2.feed_forward_length"].value == 6912
    assert draft.n_weights / 1e6 == pytest.approx(742, abs=1)


def test_the_24b_mixture(tmp_path: Path) -> None:
    """No config of it is at hand. Published are layers, experts and the two counts in its name.

    The widths here are chosen so that these counts come out.
    """
    layers = ["conv", "conv", *["full_attention", "conv", "conv", "conv"] * 9]
    layers += ["full_attention", "conv"]
    config = {
        "architectures": ["Lfm2MoeForCausalLM"], "model_type": "lfm2_moe",
        "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 11776, "moe_intermediate_size": 1536,
        "num_experts": 64, "num_experts_per_tok": 4, "num_dense_layers": 2,
        "layer_types": layers,
        "conv_L_cache": 3, "norm_eps": 1e-5, "vocab_size": 65536, "rope_theta": 1000000.0,
        "norm_topk_prob": True, "use_expert_bias": True, "routed_scaling_factor": 1.0,
        "max_position_embeddings": 128000, "eos_token_id": 7, "tie_word_embeddings": True,
    }  # fmt: skip
    assert (layers.count("conv"), len(layers)) == (30, 40)
    draft = drafted(config, tmp_path / "LFM2-24B-A2B", "Q4_K_M")
    assert draft.n_weights / 1e9 == pytest.approx(24, abs=0.5)
    experts = sum(math.prod(t.shape) for t in draft.tensors if "_exps" in t.name)
    assert (draft.n_weights - experts * 60 / 64) / 1e9 == pytest.approx(2, abs=0.5)
    assert len(draft.tensors) == 2 + 30 * 5 + 10 * 8 + 2 * 3 + 38 * 5
    assert draft.type_counts.keys() == {"F32", "Q4_K", "Q6_K"}
