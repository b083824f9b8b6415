"""Checkpoints that cannot be converted: one line that says why, and nothing written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.command import refusal, run
from tests.making.checkpoints import config, save, weights, write_json

Damage = Callable[[Path], Any]
Damages = dict[str, tuple[Damage, str]]
DOWN = "model.layers.1.feed_forward.w2.weight"


def without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def text(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def cut(name: str, n: int) -> Damage:
    """Take the last ``n`` bytes away."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-n])


def edit(name: str, change: Callable[[Any], Any]) -> Damage:
    """Change a JSON file; ``change`` does it in place."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        change(content)
        write_json(folder / name, content)

    return damage


def setting(**changes: Any) -> Damage:
    return edit("config.json", lambda content: content.update(changes))


def tensors(change: Callable[[dict[str, np.ndarray]], Any], dtype: str = "BF16") -> Damage:
    """Save other weights; ``change`` changes the dictionary in place."""

    def damage(folder: Path) -> None:
        found = weights(config())
        change(found)
        save(folder, found, dtype)

    return damage


def weight(name: str, at: tuple[int, ...], value: float, dtype: str = "BF16") -> Damage:
    def change(found: dict[str, np.ndarray]) -> None:
        found[name][at] = value

    return tensors(change, dtype)


def header(length: int) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])

    return damage


def shards(change: Callable[[Path, dict[str, str]], Any]) -> Damage:
    """Save in three shards; ``change`` changes the files and the index's map in place."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        save(folder, weights(config()), shards=3)
        index = folder / "model.safetensors.index.json"
        weight_map = json.loads(index.read_text())["weight_map"]
        change(folder, weight_map)
        write_json(index, {"weight_map": weight_map})

    return damage


def instead(name: str) -> Damage:
    """Another file than the weights."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / name)

    return damage


def pre_tokenizer(change: Callable[[Any], Any]) -> Damage:
    return edit("tokenizer.json", lambda content: change(content["pre_tokenizer"]))


def vocabulary(change: Callable[[Any], Any]) -> Damage:
    return edit("tokenizer.json", lambda content: change(content["model"]))


SECOND = "model-00002-of-00003.safetensors"
FILES: Damages = {
    "no config": (without("config.json"), "config.json: missing"),
    "no weights": (without("model.safetensors"), "has no weights"),
    "no tokenizer": (without("tokenizer.json"), "tokenizer.json: missing"),
    "config is not JSON": (text("config.json", "{"), "config.json: cannot be read as JSON"),
    "config is deep": (text("config.json", "[" * 100_000), "cannot be read as JSON"),
    "config is a list": (text("config.json", "[]"), "holds a list, not an object"),
    "config is a number": (text("config.json", "7"), "holds a number, not an object"),
    "config is nothing": (text("config.json", "null"), "holds null, not an object"),
    "pickles only": (instead("pytorch_model.bin"), "safe_serialization=True"),
    "an adapter only": (instead("adapter_model.safetensors"), "an adapter's weights"),
    "an adapter": (
        lambda folder: (instead("adapter_model.safetensors")(folder),
                        write_json(folder / "adapter_config.json", {})),
        "is a LoRA adapter",
    ),
    "weights truncated": (cut("model.safetensors", 1), "truncated"),
    "weights empty": (text("model.safetensors", ""), "truncated"),
    "header of absurd length": (header(1 << 60), "truncated: its header should have"),
    "header cut short": (header(100), "header cannot be read"),
    "shard missing": (shards(lambda f, m: (f / SECOND).unlink()), "names this shard"),
    "shard truncated": (
        shards(lambda f, m: cut(SECOND, 9)(f)), "truncated",
    ),
    "shards of an older model": (
        lambda folder: save(folder, weights(config()), shards=3),
        "names 3 other shards; transformers loads model.safetensors",
    ),
    "index leads out": (shards(lambda f, m: m.update({DOWN: "../x"})), "plain name"),
    "index with an absolute path": (shards(lambda f, m: m.update({DOWN: "/x"})), "plain name"),
    "index with a number": (shards(lambda f, m: m.update({DOWN: 3})), "plain name"),
    "index names a folder": (shards(lambda f, m: m.update({DOWN: ".."})), "names this shard"),
    "index without names": (shards(lambda f, m: m.clear()), "no 'weight_map'"),
    "index names the wrong shard": (
        shards(lambda f, m: m.update(dict.fromkeys(m, SECOND))), "says that the tensor",
    ),
    "index names a tensor too many": (
        shards(lambda f, m: m.update({"x": SECOND})), "says that the tensor 'x'",
    ),
    "a tensor in two shards": (
        shards(lambda f, m: save_as(f / "model-00001-of-00003.safetensors", f / SECOND)), "is in",
    ),
    "model card": (text("README.md", "---\na: [\n---\n"), "front matter is not YAML"),
    "generation config": (text("generation_config.json", "]"), "cannot be read as JSON"),
    "generation config with NaN": (
        edit("generation_config.json", lambda c: c.update(temperature=float("nan"))),
        "generation_config.json: gives nan for general.sampling.temp",
    ),
    "generation config with infinity": (
        edit("generation_config.json", lambda c: c.update(min_p=float("inf"))),
        "generation_config.json: gives inf for general.sampling.min_p",
    ),
    "generation config with text": (
        edit("generation_config.json", lambda c: c.update(temperature="hot")),
        "generation_config.json: gives 'hot' for general.sampling.temp",
    ),
    "model card with a date": (
        text("README.md", "---\nmodel_name: 2026-01-01\n---\n"), "README.md: gives datetime.date",
    ),
    "model card with numbers": (
        text("README.md", "---\ntags: [1, null]\n---\n"), "README.md: gives [1, None] for",
    ),
}  # fmt: skip


def save_as(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


CONFIG: Damages = {
    "LFM3": (setting(architectures=["Lfm3ForCausalLM"]), "Lfm3ForCausalLM"),
    "Llama": (setting(architectures=["LlamaForCausalLM"]), "LlamaForCausalLM"),
    "an encoder": (setting(architectures=["Lfm2BidirectionalForMaskedLM"]), "Bidirectional"),
    "no architecture": (setting(architectures=None), "names no 'architectures'"),
    "architecture is a list": (setting(architectures=[["x"]]), "architecture"),
    "hidden size is text": (setting(hidden_size="64"), "hidden_size is '64'"),
    "hidden size is missing": (setting(hidden_size=None), "hidden_size is missing"),
    "no layers": (setting(num_hidden_layers=0, layer_types=[]), "num_hidden_layers is 0"),
    "layers beyond number": (
        setting(num_hidden_layers=10**12, layer_types=None, full_attn_idxs=[1]), "layers",
    ),
    "layer types too few": (setting(layer_types=["conv"]), "1 layer_types for 2"),
    "an unknown layer": (setting(layer_types=["conv", "mamba"]), "'mamba'"),
    "other heads": (setting(head_dim=100), "heads of 100"),
    "no heads": (setting(num_attention_heads=0), "num_attention_heads is 0"),
    "a bias": (setting(conv_bias=True), "conv_bias is True"),
    "another activation": (setting(hidden_act="gelu"), "'gelu'"),
    "scaled positions": (setting(rope_parameters={"rope_type": "yarn"}), "'yarn'"),
    "positions scaled, and not": (
        setting(rope_scaling={"rope_type": "yarn", "factor": 4.0}), "rope_scaling scales",
    ),
    "positions scaled as of old": (
        setting(rope_parameters=None, rope_scaling={"type": "linear"}), "by 'linear'",
    ),
    "its name is a number": (setting(_name_or_path=5), "_name_or_path is 5, not a valid str"),
    "untied by one key, tied by another": (
        setting(tie_embedding=False, tie_word_embeddings=True), "'lm_head.weight' is missing",
    ),
    "rope is text": (setting(rope_parameters="none"), "rope_parameters is 'none'"),
    "eps is a list": (setting(norm_eps=[1]), "norm_eps is [1]"),
    "a context past 32 bits": (setting(max_position_embeddings=2**40), "context_length"),
}  # fmt: skip
TENSORS: Damages = {
    "missing": (tensors(lambda t: t.pop(DOWN)), f"{DOWN!r} is missing"),
    "left over": (
        tensors(lambda t: t.update(extra=np.zeros((2, 2), np.float32))), "'extra' does not belong",
    ),
    "wrong shape": (
        tensors(lambda t: t.update({DOWN: t[DOWN].T.copy()})), "is 96 x 64 where config.json makes",
    ),
    "wrong vocabulary": (setting(vocab_size=301), "is 300 x 64 where config.json makes it 301 x"),
    "wrong feed-forward": (setting(block_auto_adjust_ff_dim=True), "makes it 256 x 64"),
    "untied without a head": (setting(tie_word_embeddings=False), "'lm_head.weight' is missing"),
    "NaN": (weight(DOWN, (7, 5), np.nan), f"{DOWN!r} holds nan at row 7, column 5"),
    "infinity": (weight(DOWN, (63, 95), -np.inf), "holds -inf at row 63, column 95"),
    "NaN in a norm": (weight("model.embedding_norm.weight", (9,), np.nan), "column 9"),
    "too large for a scale": (weight(DOWN, (3, 3), 1e30), "too large for"),
    "integers": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()
            .replace(b'"dtype": "BF16", "shape": [64]', b'"dtype": "I16", "shape":  [64]')
        ), "holds I16",
    ),
}  # fmt: skip
TOKENIZER: Damages = {
    "not JSON": (text("tokenizer.json", ""), "cannot be read as JSON"),
    "WordPiece": (vocabulary(lambda m: m.update(type="WordPiece")), "its model is 'WordPiece'"),
    "no model": (edit("tokenizer.json", lambda t: t.pop("model")), "its model is None"),
    "model is a list": (edit("tokenizer.json", lambda t: t.update(model=[1])), "tokenizer.json"),
    "no vocabulary": (vocabulary(lambda m: m.pop("vocab")), "vocabulary is damaged"),
    "vocabulary is a list": (vocabulary(lambda m: m.update(vocab=["a"])), "vocabulary is damaged"),
    "an id that is text": (vocabulary(lambda m: m["vocab"].update(x="7")), "damaged"),
    "an id past the embedding": (vocabulary(lambda m: m["vocab"].update(x=300)), "id 300 ('x')"),
    "a negative id": (vocabulary(lambda m: m["vocab"].update(x=-1)), "-1"),
    "half a character": (vocabulary(lambda m: m["vocab"].update({"\ud800": 290})), "tokens"),
    "no merges": (vocabulary(lambda m: m.update(merges=[])), "has no merges"),
    "merges of numbers": (vocabulary(lambda m: m.update(merges=[[1, 2]])), ""),
    "an added token without text": (
        edit("tokenizer.json", lambda t: t["added_tokens"].append({"id": 299})), "damaged",
    ),
    "another split": (
        pre_tokenizer(lambda p: p["pretokenizers"][0]["pattern"].update(Regex="(?i:'S)")),
        "(?i:'S)",
    ),
    "inverted": (pre_tokenizer(lambda p: p["pretokenizers"][0].update(invert=True)), "--pre"),
    "a prefix space": (
        pre_tokenizer(lambda p: p["pretokenizers"][1].update(add_prefix_space=True)), "--pre",
    ),
    "metaspace": (pre_tokenizer(lambda p: p.update(type="Metaspace")), "Metaspace"),
    **{
        f"a template of {template}": (
            edit("tokenizer_config.json", lambda c, t=template: c.update(chat_template=t)),
            "its chat_template is neither",
        )
        for template in (5, ["text"], [{"name": "default"}], {"default": None})
    },
    "its config": (text("tokenizer_config.json", "{"), "cannot be read as JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), FILES.values(), ids=FILES)
def test_files(checkpoint: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    check(checkpoint, tmp_path, damage, message)


@pytest.mark.parametrize(("damage", "message"), CONFIG.values(), ids=CONFIG)
def test_config(checkpoint: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    check(checkpoint, tmp_path, damage, message)


@pytest.mark.parametrize(("damage", "message"), TENSORS.values(), ids=TENSORS)
def test_tensors(checkpoint: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    check(checkpoint, tmp_path, damage, message)


@pytest.mark.parametrize(("damage", "message"), TOKENIZER.values(), ids=TOKENIZER)
def test_tokenizer(checkpoint: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    check(checkpoint, tmp_path, damage, message)


def check(checkpoint: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    damage(checkpoint)
    said = refusal("convert", checkpoint, "-q", "-o", tmp_path, within=tmp_path)
    assert message in said


def test_too_large_for_float16_but_not_for_bfloat16(checkpoint: Path, tmp_path: Path) -> None:
    weight(DOWN, (3, 3), 1e6)(checkpoint)
    said = refusal("convert", checkpoint, "-qt", "f16", "-o", tmp_path, within=tmp_path)
    assert f"{DOWN!r}, from row 0 on, has weights too large for F16" in said
    assert run("convert", checkpoint, "-t", "bf16", "-o", tmp_path).code == 0


def test_one_bad_weight_spoils_every_file(checkpoint: Path, tmp_path: Path) -> None:
    """With several types it is all files or none."""
    weight(DOWN, (0, 0), np.nan)(checkpoint)
    types = ["-qt", "F32", "-t", "Q8_0", "-t", "Q4_0"]
    assert "nan" in refusal("convert", checkpoint, *types, "-o", tmp_path, within=tmp_path)
