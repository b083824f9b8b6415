"""Adapters merged while converting, against peft's merge (golden/make_lora.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import Conversion, GGUFFile, convert, verify
from lfm2gguf.conversion import tasks
from lfm2gguf.storage import rows
from lfm2gguf.verification import Engine, Material, open_reference
from tests.cli.command import run
from tests.conversion.test_parity import ROOT
from tests.making.adapters import (
    CASES,
    PREFIX,
    UNTIED,
    AdapterCase,
    linear,
    make_adapter,
    make_base,
    tensors,
)
from tests.making.checkpoints import config, weights, write_safetensors

GOLDEN = json.loads((ROOT / "tests/golden/lora.json").read_text())["cases"]
# Names in the file of what the cases change.
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "lm_head.weight": "output.weight",
    "model.layers.0.operator_norm.weight": "blk.0.attn_norm.weight",
    "model.layers.0.conv.in_proj.weight": "blk.0.shortconv.in_proj.weight",
    "model.layers.0.feed_forward.w2.weight": "blk.0.ffn_down.weight",
    "model.layers.1.feed_forward.w2.weight": "blk.1.ffn_down.weight",
    "model.layers.1.self_attn.q_proj.weight": "blk.1.attn_q.weight",
}
TIED = config()
Q = "model.layers.1.self_attn.q_proj"


def merge(case: AdapterCase, folder: Path, type: str = "F32", **options: Any) -> Conversion:
    make_base(case, folder / "Base")
    make_adapter(case, folder / "tune")
    target = folder / f"{type}.gguf"
    return convert(folder / "Base", target, type, lora=folder / "tune", **options)


def floats(file: GGUFFile, name: str) -> np.ndarray:
    return file.data(name).view(np.float32).reshape(file.tensors[name].shape)


def by_hf_name(file: GGUFFile, name: str) -> np.ndarray:
    if not name.endswith("_proj"):
        return floats(file, NAMES[name])
    block = f"blk.{name.split('.')[2]}.ffn_"
    if name.endswith("down_proj"):
        return floats(file, f"{block}down_exps.weight")
    both = [floats(file, f"{block}{kind}_exps.weight") for kind in ("gate", "up")]
    return np.concatenate(both, axis=1)


@pytest.mark.parametrize("name", CASES)
def test_the_merge_is_pefts(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    result = merge(case, tmp_path)
    file = GGUFFile.open(result.files[0].path)
    plain = GGUFFile.open(convert(tmp_path / "Base", tmp_path / "p.gguf", "F32").files[0].path)
    assert list(plain.tensors) == list(file.tensors)
    changed = {n for n in file.tensors if (file.data(n) != plain.data(n)).any()}
    assert changed
    for hf_name, expected in GOLDEN[name].items():
        ours = by_hf_name(file, hf_name).reshape(-1)
        ours = ours[np.linspace(0, ours.size - 1, len(expected)).astype(int)]
        np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6)
    if "packed" not in name:
        assert changed == {NAMES[hf_name] for hf_name in GOLDEN[name]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patterns", "dora", "packed-experts"])
def test_the_bytes_depend_on_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on how many work, nor on how the rows are cut."""
    case = CASES[name]
    first = merge(case, tmp_path, "Q8_0", jobs=1).files[0].path.read_bytes()
    for tile, task in ((1 << 9, 1 << 11), (1 << 12, 1 << 12)):
        monkeypatch.setattr(rows, "TILE_WEIGHTS", tile)
        monkeypatch.setattr(tasks, "TASK_WEIGHTS", task)
        source, adapter = tmp_path / "Base", tmp_path / "tune"
        again = convert(source, tmp_path / "again.gguf", "Q8_0", lora=adapter, overwrite=True)
        assert again.files[0].path.read_bytes() == first


def rewritten(tmp_path: Path, change: Mapping[str, np.ndarray], case: AdapterCase) -> bytes:
    """The file for a case whose adapter holds other tensors."""
    write_safetensors(tmp_path / "tune" / "adapter_model.safetensors", change, "F32")
    target = tmp_path / "other.gguf"
    convert(tmp_path / "Base", target, "F32", lora=tmp_path / "tune", overwrite=True)
    return target.read_bytes()


def experts(case: AdapterCase) -> dict[str, np.ndarray]:
    """The packed adapter's deltas for experts that are modules of their own."""
    one_by_one = {}
    packed, count = tensors(case), int(case.base["num_experts"])
    for name in packed:
        if not name.endswith("lora_A.weight"):
            continue
        a, b = packed[name], packed[name.replace("lora_A", "lora_B")]
        layer = name.split(".base_layer")[0].removesuffix(".lora_A.weight")
        rank = len(a) // count
        for i in range(count):
            a_i, b_i = a[i * rank : (i + 1) * rank], b[:, i::count]
            half = len(b_i) // 2
            rows = {"w1": b_i[:half], "w3": b_i[half:]} if "base_layer" in name else {"w2": b_i}
            for matrix, part in rows.items():
                one_by_one[f"{layer}.{i}.{matrix}.lora_A.weight"] = a_i
                one_by_one[f"{layer}.{i}.{matrix}.lora_B.weight"] = part
    return one_by_one


def test_experts_one_by_one(tmp_path: Path) -> None:
    case = CASES["packed-experts"]
    first = merge(case, tmp_path).files[0].path.read_bytes()
    assert rewritten(tmp_path, experts(case), case) == first


def test_packed_experts_as_peft_saved_them_at_first(tmp_path: Path) -> None:
    """Before 0.18 peft took rows for columns, and its factors are those of the transpose."""
    case = CASES["packed-experts"]
    first = GGUFFile.open(merge(case, tmp_path).files[0].path)
    packed, count = tensors(case), int(case.base["num_experts"])
    across = {}
    for name in packed:
        if name.endswith("lora_A.weight"):
            a, b = packed[name], packed[name.replace("lora_A", "lora_B")]
            rank = len(a) // count
            across[name] = np.concatenate([b[:, i::count].T for i in range(count)])
            columns = [a[i * rank : (i + 1) * rank].T for i in range(count)]
            across[name.replace("lora_A", "lora_B")] = np.stack(columns, axis=2).reshape(
                a.shape[1], -1
            )
    assert {x.shape for x in across.values()} != {x.shape for x in packed.values()}
    rewritten(tmp_path, across, case)
    other = GGUFFile.open(tmp_path / "other.gguf")
    for name in first.tensors:
        np.testing.assert_allclose(floats(other, name), floats(first, name), rtol=1e-6, atol=1e-7)


class TestATiedHead:
    """The embedding and the head are one weight, and the adapter changes one of them."""

    @pytest.mark.parametrize("changed", ["embedding", "head"])
    def test_becomes_a_matrix_of_its_own(self, changed: str, tmp_path: Path) -> None:
        both = CASES["embedding-and-head"]
        kept = "embed" if changed == "embedding" else "lm_head"
        shapes = {name: shape for name, shape in both.shapes.items() if kept in name}
        result = merge(replace(both, base=TIED, shapes=shapes), tmp_path)
        assert "matrix of its own" in "".join(result.notes)
        file = GGUFFile.open(result.files[0].path)
        plain = weights(TIED)["model.embed_tokens.weight"]
        moved = {
            n for n in ("token_embd.weight", "output.weight") if (floats(file, n) != plain).any()
        }
        assert moved == {"token_embd.weight" if changed == "embedding" else "output.weight"}

    def test_stays_tied_where_peft_kept_it_so(self, tmp_path: Path) -> None:
        both = CASES["embedding-and-head"]
        shapes = {name: shape for name, shape in both.shapes.items() if "embed" in name}
        case = replace(
            both, base=TIED, shapes=shapes, config=both.config | {"ensure_weight_tying": True}
        )
        file = GGUFFile.open(merge(case, tmp_path).files[0].path)
        assert "output.weight" not in file.tensors

    @pytest.mark.parametrize("moved", [False, True])
    def test_whose_factors_are_the_embeddings(self, moved: bool, tmp_path: Path) -> None:
        """peft saves them twice then, for the head read across; and parted if they differ."""
        both = CASES["embedding-and-head"]
        config = both.config | {"ensure_weight_tying": True}
        case = replace(both, base=TIED, config=config)
        make_base(case, tmp_path / "Base")
        folder, x = make_adapter(case, tmp_path / "tune"), tensors(case)
        embedding = f"{PREFIX}model.embed_tokens.lora_embedding_"
        x[f"{PREFIX}lm_head.lora_A.weight"] = x[f"{embedding}B"].T + np.float32(moved)
        x[f"{PREFIX}lm_head.lora_B.weight"] = x[f"{embedding}A"].T
        x[f"{PREFIX}lm_head.base_layer.weight"] = weights(TIED)["model.embed_tokens.weight"]
        write_safetensors(folder / "adapter_model.safetensors", x, "F32")
        result = convert(tmp_path / "Base", tmp_path / "out.gguf", "F32", lora=folder)
        file = GGUFFile.open(result.files[0].path)
        assert ("output.weight" in file.tensors) == moved
        assert any("repeats the embedding's factors" in note for note in result.notes) != moved
        reference = open_reference(tmp_path / "Base", lora=folder)
        material = Material(chunks=1, cache=False)
        checked = verify(file.path, reference, material=material, engine=Engine("numpy"))
        assert checked.passed, checked.failures

    def test_of_a_vocabulary_that_grew(self, tmp_path: Path) -> None:
        """peft then saves the whole embedding; nothing is left that it could differ from."""
        shapes = {**linear(Q, 64, 64), "model.embed_tokens.weight": (320, 64)}
        case = AdapterCase(TIED, shapes, {"target_modules": ["q_proj"]})
        result = merge(case, tmp_path)
        file = GGUFFile.open(result.files[0].path)
        assert file.tensors["token_embd.weight"].shape == (320, 64)
        assert "output.weight" not in file.tensors
        assert file.get("lfm2.vocab_size") == 320


WHOLE = ("lm_head", "model.embed_tokens")
GROWN = AdapterCase(
    TIED,
    {**linear(Q, 64, 64), **{f"{module}.weight": (320, 64) for module in WHOLE}},
    {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
)


def copied(x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As peft saves the embedding and head of a vocabulary that grew: thrice."""
    saved = dict(x)
    for module in WHOLE:
        saved[f"{PREFIX}{module}.modules_to_save.weight"] = x[f"{PREFIX}{module}.weight"].copy()
        saved[f"{PREFIX}{module}.original_module.weight"] = np.zeros((320, 64), np.float32)
    return saved


def test_trained_copies_of_embedding_and_head(tmp_path: Path) -> None:
    first = merge(GROWN, tmp_path).files[0].path
    assert GGUFFile.open(first).get("lfm2.vocab_size") == 320
    assert rewritten(tmp_path, copied(tensors(GROWN)), GROWN) == first.read_bytes()


@pytest.mark.parametrize("other", [False, True])
def test_the_weights_that_factors_were_made_for(other: bool, tmp_path: Path) -> None:
    """peft saves those of embedding and head; where they are not the base's, they are taken."""
    case = CASES["embedding-and-head"]
    merged = GGUFFile.open(merge(case, tmp_path).files[0].path)
    plain = {name: x + np.float32(other) for name, x in weights(UNTIED).items()}
    saved = {f"{PREFIX}{m}.base_layer.weight": plain[f"{m}.weight"] for m in WHOLE}
    path = tmp_path / "tune" / "adapter_model.safetensors"
    write_safetensors(path, tensors(case) | saved, "F32")
    result = convert(tmp_path / "Base", tmp_path / "o.gguf", "F32", lora=tmp_path / "tune")
    assert other == any("trained with other weights" in note for note in result.notes)
    file = GGUFFile.open(result.files[0].path)
    for module in WHOLE:
        name = NAMES[f"{module}.weight"]
        expected = floats(merged, name) + np.float32(other)
        np.testing.assert_allclose(floats(file, name), expected, rtol=1e-6, atol=1e-6 * other)


def test_the_adapters_tokenizer_is_taken(tmp_path: Path) -> None:
    case = CASES["plain"]
    make_base(case, tmp_path / "Base")
    folder = make_adapter(case, tmp_path / "tune")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((tmp_path / "Base" / file).read_bytes())
    (folder / "chat_template.jinja").write_text("the adapter's")
    result = convert(tmp_path / "Base", tmp_path / "out.gguf", "F32", lora=folder)
    assert "the tokenizer is the adapter's" in result.notes
    file = GGUFFile.open(result.files[0].path)
    assert file.get("tokenizer.chat_template") == "the adapter's"


@pytest.mark.parametrize(
    "files", [("tokenizer.json",), ("chat_template.jinja",), ("tokenizer_config.json",)]
)
def test_a_part_of_a_tokenizer_is_not(files: tuple[str, ...], tmp_path: Path) -> None:
    case = CASES["plain"]
    first = merge(case, tmp_path).files[0].path
    for file in files:
        (tmp_path / "tune" / file).write_text("{}")
    result = convert(tmp_path / "Base", tmp_path / "out.gguf", "F32", lora=tmp_path / "tune")
    assert result.files[0].path.read_bytes() == first.read_bytes()
    assert f"tune: {files[0]}: not used, as a tokenizer is tokenizer.json and" in result.notes[1]


def test_the_summary_says_what_went_where(tmp_path: Path) -> None:
    make_base(CASES["plain"], tmp_path / "Base")
    make_adapter(CASES["plain"], tmp_path / "tune")
    arguments = ["-t", "Q8_0", "-o", tmp_path / "out.gguf", "--lora", tmp_path / "tune"]
    result = run("convert", tmp_path / "Base", *arguments)
    assert GGUFFile.open(tmp_path / "out.gguf").get("general.name") == "Base Tune"
    assert "4 deltas (1 conv.in_proj, 2 feed_forward.w2, 1 self_attn.q_proj)" in result.err


def test_names_of_a_training_that_was_not_saved_by_peft(tmp_path: Path) -> None:
    """State dicts keep the adapter's name in theirs."""
    case = CASES["plain"]
    first = merge(case, tmp_path).files[0].path.read_bytes()
    named = {n.replace("_A.", "_A.default.").replace("_B.", "_B.default."): x for n, x in
             tensors(case).items()}  # fmt: skip
    assert all(name.startswith(PREFIX) for name in named)
    assert rewritten(tmp_path, named, case) == first
