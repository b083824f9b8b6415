"""Adapters that cannot be merged, or are broken: each is named, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import convert
from lfm2gguf.errors import Lfm2ggufError
from tests.cli.command import listing, refusal, run
from tests.conversion.test_lora import GROWN, TIED, Q, copied, merge
from tests.making.adapters import (
    CASES,
    PACKED,
    PREFIX,
    UNTIED,
    AdapterCase,
    linear,
    make_adapter,
    make_base,
    tensors,
)
from tests.making.checkpoints import write_safetensors


def test_copies_that_differ(tmp_path: Path) -> None:
    merge(GROWN, tmp_path)
    saved = copied(tensors(GROWN))
    saved[f"{PREFIX}lm_head.modules_to_save.weight"][5, 6] += 1
    write_safetensors(tmp_path / "tune" / "adapter_model.safetensors", saved, "F32")
    arguments = ["convert", tmp_path / "Base", "--lora", tmp_path / "tune"]
    assert "are both 'lm_head.weight', and differ" in refusal(*arguments, within=tmp_path)


@pytest.mark.parametrize(
    ("shapes", "settings", "words"),
    [
        (linear("model.layers.0.self_attn.q_proj", 64, 64), {}, "'model.layers.0.self_attn.q_proj"),
        (linear("model.layers.7.conv.in_proj", 64, 64), {}, "does not have"),
        (linear(Q, 64, 32), {}, "do not make up the weight's (64, 64)"),
        (linear(Q, 96, 64), {}, "do not make up the weight's (64, 64)"),
        ({f"{Q}.lora_A.weight": (4, 64)}, {}, "instead of a pair of lora_A and lora_B"),
        ({f"{Q}.lora_A.weight": (4, 64), f"{Q}.lora_B.weight": (64, 3)}, {}, "do not make up"),
        ({f"{Q}.lora_E.weight": (4, 64)}, {}, "is not a factor"),
        ({f"{Q}.bias": (64,)}, {}, "is not a factor"),
        ({**linear(Q, 64, 64), f"{Q}.lora_magnitude_vector": (32,)}, {}, "needs 64 values"),
        (linear(Q, 64, 64), {"peft_type": "ADALORA"}, "'ADALORA', not 'LORA'"),
        (linear(Q, 64, 64), {"init_lora_weights": "pissa_niter_4"}, "changed the base model too"),
        (linear(Q, 64, 64), {"layer_replication": [[0, 2]]}, "layer_replication is set"),
        (linear(Q, 64, 64), {"lora_alpha": "8"}, "lora_alpha is '8', not a number"),
        (linear(Q, 64, 64), {"use_dora": True}, f"{Q!r} has no lora_magnitude_vector"),
        (
            {**linear(Q, 64, 64), f"{Q}.lora_B.bias": (64,)},
            {"lora_bias": True},
            "which neither LFM2's layers nor",
        ),
        (linear(Q, 64, 64), {"alora_invocation_tokens": [5, 6]}, "an activated LoRA"),
    ],
)
def test_what_does_not_fit_is_named(
    shapes: dict[str, Any], settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    case = AdapterCase(TIED, shapes, {"target_modules": ["q_proj"]})
    make_base(case, tmp_path / "Base")
    folder = make_adapter(case, tmp_path / "tune", **settings)
    target = tmp_path / "out.gguf"
    message = refusal("convert", tmp_path / "Base", "-o", target, "--lora", folder, within=tmp_path)
    assert words in message


BOTH_COMMANDS = [
    ({"lora_alpha": 0}, "adapter_config.json: lora_alpha is 0, not"),
    ({"lora_alpha": None}, "adapter_config.json: lora_alpha is None, not"),
    ({"lora_alpha": True}, "adapter_config.json: lora_alpha is True, not"),
    ({"lora_alpha": float("nan")}, "adapter_config.json: lora_alpha is nan, not"),
    ({"lora_alpha": 10**400}, "not a number"),
    ({"alpha_pattern": [16]}, "adapter_config.json: alpha_pattern is [16], not"),
    ({"alpha_pattern": {"q_proj": "16"}}, "alpha_pattern is {'q_proj': '16'}, not"),
    ({"rank_pattern": ["q_proj"]}, "adapter_config.json: rank_pattern is ['q_proj'], not"),
    (
        {"alpha_pattern": {"(": 16}},
        "adapter_config.json: alpha_pattern: '(' is not a valid regular",
    ),
    ({"invocation_string": "go"}, "give the ids of its tokens as alora_invocation_tokens"),
    ({"alora_invocation_tokens": ["go"]}, "not a list of token ids"),
    ({"lora_bias": True}, "nor an adapter file"),
]


@pytest.mark.parametrize(("settings", "words"), BOTH_COMMANDS)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    make_base(CASES["plain"], tmp_path / "Base")
    folder = make_adapter(CASES["plain"], tmp_path / "tune", **settings)
    target = tmp_path / "out.gguf"
    for command in (
        ["convert", tmp_path / "Base", "--lora", folder, "-o", target],
        ["convert-lora", folder, "--base", tmp_path / "Base", "-o", target],
    ):
        assert words in refusal(*command, within=tmp_path)


@pytest.mark.parametrize("shape", [(0,), (0, 64)])
def test_factors_that_were_not_gathered(shape: tuple[int, ...], tmp_path: Path) -> None:
    """As DeepSpeed ZeRO-3 leaves them."""
    make_base(CASES["plain"], tmp_path / "Base")
    case = AdapterCase(UNTIED, {f"{Q}.lora_A.weight": shape, f"{Q}.lora_B.weight": shape})
    folder = make_adapter(case, tmp_path / "tune")
    target = tmp_path / "out.gguf"
    plain = convert(tmp_path / "Base", tmp_path / "plain.gguf", "F32").files[0].path
    for command in (
        ["convert", tmp_path / "Base", "--lora", folder, "-o", target],
        ["convert-lora", folder, "--base", tmp_path / "Base", "-o", target],
        ["verify", plain, "-r", tmp_path / "Base", "--lora", folder],
    ):
        message = refusal(*command, within=tmp_path)
        assert "q_proj.lora_A.weight' is empty; DeepSpeed ZeRO-3" in message


@pytest.mark.parametrize("part", ["lora_A", "lora_magnitude_vector"])
def test_an_adapter_with_nan(part: str, tmp_path: Path) -> None:
    """Is not blamed on the base."""
    case = CASES["dora" if "magnitude" in part else "plain"]
    make_base(case, tmp_path / "Base")
    folder, broken = make_adapter(case, tmp_path / "tune"), tensors(case)
    name = next(name for name in broken if f"{Q}.{part}" in name)
    broken[name].reshape(-1)[3] = np.nan
    write_safetensors(folder / "adapter_model.safetensors", broken, "F32")
    commands = [["convert", tmp_path / "Base", "--lora", folder, "-o", tmp_path / "out.gguf"]]
    if part == "lora_A":
        commands.append(["convert-lora", folder, "--base", tmp_path / "Base", "-o", tmp_path])
    before = listing(tmp_path)
    for command in commands:
        result = run(*command)
        assert (result.code, listing(tmp_path)) == (2, before)
        message = result.err.splitlines()[-1]  # others are of progress
        assert "tune" in message
        assert "the adapter is broken" in message
        assert "nan" in message


def test_experts_of_another_size(tmp_path: Path) -> None:
    case = replace(
        CASES["packed-experts"], shapes={n: (s[0], s[1] + 12) for n, s in PACKED.items()}
    )
    with pytest.raises(Lfm2ggufError, match="neither of the experts' matrices"):
        merge(case, tmp_path)


def test_a_pickled_adapter(tmp_path: Path) -> None:
    make_base(CASES["plain"], tmp_path / "Base")
    folder = make_adapter(CASES["plain"], tmp_path / "tune")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    arguments = ["convert", tmp_path / "Base", "-o", tmp_path / "out.gguf", "--lora", folder]
    assert "save it again" in refusal(*arguments, within=tmp_path)
