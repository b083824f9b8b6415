"""What mlx-lm and wrappers make of names and shapes: the same model as before, and told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lfm2gguf.checkpoint import Adapter, Checkpoint
from lfm2gguf.errors import Lfm2ggufError
from lfm2gguf.lfm2 import find_deltas, make_plan
from lfm2gguf.reference import Weights, adapted
from tests.making.checkpoints import CASES, MOE_CASES, make, save, weights, write_safetensors

MATRICES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def as_mlx(tensors: dict[str, np.ndarray], mixture: bool) -> dict[str, np.ndarray]:
    """Do what ``sanitize`` of mlx_lm/models/lfm2_moe.py does, in NumPy."""
    out: dict[str, np.ndarray] = {}
    stacks: dict[str, list[np.ndarray]] = {}
    for name, value in tensors.items():
        layer, _, rest = name.partition(".feed_forward.")
        matrix = rest.split(".")[-2] if "." in rest else ""
        if name.endswith("conv.conv.weight"):
            out[name] = value.transpose(0, 2, 1)
        elif mixture and matrix in MATRICES and "experts." in rest:
            stack = f"{layer}.feed_forward.switch_mlp.{MATRICES[matrix]}.weight"
            stacks.setdefault(stack, []).append(value)
        elif mixture and matrix in MATRICES:
            out[f"{layer}.feed_forward.{MATRICES[matrix]}.weight"] = value
        else:
            out[name] = value
    return out | {name: np.stack(parts) for name, parts in stacks.items()}


@pytest.mark.parametrize("mixture", [False, True])
def test_a_folder_of_mlx(tmp_path: Path, mixture: bool) -> None:
    case = MOE_CASES["LFM2-8-experts"] if mixture else CASES["LFM2-rows-of-16"]
    folder = make(case, tmp_path / "model")
    before = make_plan(Checkpoint.open(folder))
    true = weights(case.config)
    save(folder, as_mlx(true, mixture), "F32")
    checkpoint = Checkpoint.open(folder)
    plan = make_plan(checkpoint)
    assert plan.tensors == before.tensors
    assert all(np.array_equal(checkpoint.read(name), value) for name, value in true.items())
    assert "mlx-lm" in plan.notes[0]


@pytest.mark.parametrize(
    "prefix", ["model.", "language_model.", "policy.", "_forward_module.", "a.b.c.", "module.net."]
)
def test_one_more_prefix(tmp_path: Path, prefix: str) -> None:
    case = CASES["LFM2-rows-of-16"]
    folder = make(case, tmp_path / "model")
    plain = Checkpoint.open(folder).tensors
    save(folder, {prefix + name: value for name, value in weights(case.config).items()})
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.tensors.keys() == plain.keys()
    assert repr(prefix) in make_plan(checkpoint).notes[0]


def test_two_models_in_one_are_none(tmp_path: Path) -> None:
    case = CASES["LFM2-rows-of-16"]
    folder = make(case, tmp_path / "model")
    tensors = weights(case.config)
    save(folder, {f"{part}.{name}": v for part in "ab" for name, v in tensors.items()})
    with pytest.raises(Lfm2ggufError, match=r"there is 'a\.model\.embed_tokens\.weight'"):
        make_plan(Checkpoint.open(folder))


def mlx_adapter(folder: Path, tensors: dict[str, np.ndarray], **config: object) -> Path:
    folder.mkdir()
    about = {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 20.0}} | config
    (folder / "adapter_config.json").write_text(json.dumps(about))
    write_safetensors(folder / "adapters.safetensors", tensors, "F32")
    return folder


def test_an_adapter_of_mlx(tmp_path: Path) -> None:
    """The delta is that of ``fuse`` in mlx_lm/tuner/lora.py: ``(scale b.T) @ a.T``."""
    case = MOE_CASES["LFM2-8-experts"]
    base = Checkpoint.open(make(case, tmp_path / "base"))
    random = np.random.default_rng(3)
    tensors, deltas = {}, {}
    q, experts = "model.layers.1.self_attn.q_proj", "model.layers.2.feed_forward"
    a, b = (random.normal(size=s).astype(np.float32) for s in ((256, 2), (2, 256)))
    tensors |= {f"{q}.lora_a": a, f"{q}.lora_b": b}
    deltas[f"{q}.weight"] = (20 * b.T) @ a.T
    a, b = (random.normal(size=s).astype(np.float32) for s in ((8, 2, 256), (8, 256, 2)))
    tensors |= {f"{experts}.switch_mlp.up_proj.lora_{k}": v for k, v in {"a": a, "b": b}.items()}
    deltas |= {f"{experts}.experts.{i}.w3.weight": 20 * b[i] @ a[i] for i in range(8)}
    adapter = Adapter.open(mlx_adapter(tmp_path / "adapter", tensors))
    found = find_deltas(base.config, adapter)
    assert found.keys() == deltas.keys()
    for name, delta in deltas.items():
        np.testing.assert_allclose(found[name].delta(0, 256), delta, rtol=1e-5, atol=1e-5)
    changed = adapted(Weights.from_checkpoint(base), adapter)
    name = f"{q}.weight"
    np.testing.assert_allclose(changed.read(name), base.read(name) + deltas[name], atol=1e-4)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"fine_tune_type": "full"}, "mlx_lm.fuse"),
        ({"lora_parameters": {"rank": 8}}, "lora_parameters"),
        ({"lora_parameters": None}, "lora_parameters"),
    ],
)
def test_adapters_of_mlx_that_cannot_be_read(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    with pytest.raises(Lfm2ggufError, match=said):
        Adapter.open(mlx_adapter(tmp_path / "adapter", {}, **config))


@pytest.mark.parametrize("named", ["/home/x/base", "C:\\x\\base", "../runs/base", "base"])
def test_a_base_of_another_machine(tmp_path: Path, named: str) -> None:
    adapter = Adapter.open(mlx_adapter(tmp_path / "adapter", {}, model=named))
    with pytest.raises(Lfm2ggufError, match="not on this machine") as error:
        _ = adapter.base
    assert "for example" not in str(error.value)
    make(CASES["LFM2-rows-of-16"], tmp_path / "base")
    with pytest.raises(Lfm2ggufError, match=r"for example .*base$"):
        _ = adapter.base


def test_a_base_on_the_hub(tmp_path: Path) -> None:
    adapter = Adapter.open(mlx_adapter(tmp_path / "adapter", {}, model="LiquidAI/LFM2-1.2B"))
    assert adapter.base == "LiquidAI/LFM2-1.2B"
