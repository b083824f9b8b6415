"""Vision and audio models: what is written, what is refused, and what llama.cpp computes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import GGUFFile, convert
from lfm2gguf.checkpoint import Checkpoint, TensorInfo
from lfm2gguf.conversion import Model, Part, Recipe, SourceTensor, target_paths
from lfm2gguf.conversion.draft import draft
from lfm2gguf.errors import CheckpointError, Lfm2ggufError, OptionError, UnsupportedError
from lfm2gguf.ggml import FileType, GGMLType
from lfm2gguf.lfm2 import make_plan
from lfm2gguf.storage import GGML, StoredRows
from tests.conversion.test_parity import ROOT
from tests.making.checkpoints import write_json, write_safetensors
from tests.making.multimodal import (
    CASES,
    IMAGE_CASE,
    PUBLISHED,
    SINCE_TRANSFORMERS_5,
    VL,
    VL_CASES,
    Case,
    audio_shapes,
    image,
    make_multimodal,
    published,
    vl_shapes,
)
from tests.making.realdata import real

# Root mean square of the differences to transformers, of that of the embeddings. float32 differs
# by the activation: llama.cpp's is GELU's tanh approximation, looked up in float16.
CLOSE = {"F32": 1e-3, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 3e-2}


@pytest.fixture(scope="module")
def vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_multimodal(VL_CASES["LFM2-VL-450M"], tmp_path_factory.mktemp("vl") / "LFM2-VL-450M")


@pytest.mark.parametrize("projector", [False, True])
def test_names_of_transformers_5_become_the_same_file(
    vl: Path, projector: bool, tmp_path: Path
) -> None:
    """llama.cpp's converter does not know these names, so that it cannot be asked."""
    case = replace(VL_CASES[vl.name], shapes=vl_shapes(VL, SINCE_TRANSFORMERS_5))
    files = [
        convert(source, tmp_path / str(i), "F32", projector=projector, jobs=1).files[0].path
        for i, source in enumerate([vl, make_multimodal(case, tmp_path / vl.name)])
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_every_tensor_is_in_one_of_the_files_or_left_out_for_a_reason(
    vl: Path, tmp_path: Path
) -> None:
    names = set(VL_CASES[vl.name].shapes)
    text = convert(vl, tmp_path, "BF16", jobs=1)
    projector = convert(vl, tmp_path, projector=True, jobs=1)
    assert set(text.left_out) | set(projector.left_out) == names
    assert not set(text.left_out) & set(projector.left_out)
    assert "--mmproj" in next(iter(text.left_out.values()))
    tensors = [set(GGUFFile.open(c.files[0].path).tensors) for c in (text, projector)]
    assert len(tensors[0]) + len(tensors[1]) == len(names)
    assert projector.files[0].type == "F16"
    assert projector.files[0].path.name.startswith("mmproj-LFM2-VL-450")


def test_the_same_bytes_from_workers(
    vl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor that is computed is computed in a worker's process too."""
    alone = convert(vl, tmp_path / "1.gguf", projector=True, jobs=1).files[0]
    monkeypatch.setattr("lfm2gguf.conversion.write.WEIGHTS_PER_WORKER", 1)
    together = convert(vl, tmp_path / "2.gguf", projector=True, jobs=2).files[0]
    assert together.path.read_bytes() == alone.path.read_bytes()


def test_of_audio_the_speech_output_is_left_out_of_both(tmp_path: Path) -> None:
    case = CASES["LFM2.5-Audio-1.5B"]
    source = make_multimodal(case, tmp_path / "LFM2.5-Audio-1.5B")
    text = convert(source, tmp_path, "BF16", jobs=1)
    projector = convert(source, tmp_path, projector=True, jobs=1)
    both = set(text.left_out) & set(projector.left_out)
    speech = {name for name in both if "speech" in projector.left_out[name]}
    assert {name.split(".")[0] for name in speech} == {
        "depthformer", "depth_linear", "depth_embeddings", "codebook_offsets",
    }  # fmt: skip
    training = {name for name in both - speech if "training" in projector.left_out[name]}
    assert both - speech - training == set()
    assert set(text.left_out) | set(projector.left_out) == set(case.shapes) | set(case.integers)
    assert projector.files[0].path.name == "mmproj-LFM2.5-Audio-1.5b-F16.gguf"


def test_a_batch_norm_is_folded(tmp_path: Path) -> None:
    """The same numbers, in float64, as the four vectors give one after the other."""
    source = make_multimodal(CASES["LFM2.5-Audio-1.5B"], tmp_path / "LFM2.5-Audio-1.5B")
    file = GGUFFile.open(convert(source, tmp_path, "F32", projector=True, jobs=1).files[0].path)
    read = Checkpoint.open(source).read
    for i in range(7):
        norm = f"conformer.layers.{i}.conv.batch_norm."
        x = np.linspace(-3, 3, 64)
        mean, variance = (
            read(norm + part).astype(float) for part in ("running_mean", "running_var")
        )
        expected = (x - mean) / np.sqrt(variance + 1e-5) * read(norm + "weight") + read(
            norm + "bias"
        )
        weight, bias = (
            file.data(f"a.blk.{i}.conv_norm.{part}").reshape(-1).view(np.float32)
            for part in ("weight", "bias")
        )
        np.testing.assert_allclose(weight * x + bias, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def runnable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and its text model."""
    source = make_multimodal(IMAGE_CASE, tmp_path_factory.mktemp("run") / "LFM2-VL-Run")
    return source, convert(source, source, "F32", jobs=1).files[0].path


@pytest.mark.parametrize("type", CLOSE)
def test_image_embeddings_are_those_of_transformers(runnable: tuple[Path, Path], type: str) -> None:
    """The projector in llama.cpp, against golden/make_image_embeddings.py."""
    mtmd = pytest.importorskip("tests.making.mtmd", reason="llama-cpp-python is not installed")
    source, text = runnable
    projector = convert(source, source, type, projector=True, jobs=1).files[0].path
    expected = np.load(ROOT / "tests/golden/image_embeddings.npz")["embeddings"]
    found = mtmd.image_embeddings(text, projector, image())
    assert found.shape == expected.shape
    assert np.square(found - expected).mean() < CLOSE[type] ** 2 * np.square(expected).mean()


# LiquidAI/LFM2.5-VL-1.6B-GGUF, mmproj-LFM2.5-VL-1.6b-Q8_0.gguf: that, and its name
PUBLISHED_PROJECTOR = ("mmproj-LFM2.5-VL-1.6b-Q8_0.gguf", 583_109_888)
TRUE_SHAPES = {  # tensors of the text model, its weights; tensors of the projector
    "LFM2.5-VL-450M": (148, 354_483_968, 201),
    "LFM2.5-VL-1.6B": (148, 1_170_340_608, 441),
    "LFM2.5-VL-3B": (266, 2_569_272_320 + (128_000 - 65_536) * 2048, 441),
}


@pytest.mark.parametrize("name", TRUE_SHAPES)
def test_plans_of_the_real_shapes(name: str, vl: Path) -> None:
    """Every tensor of the published shapes has its place; there are no weights to be read."""
    n_text, n_weights, n_projector = TRUE_SHAPES[name]
    checkpoint = _true(name, vl)
    text, projector = make_plan(checkpoint), make_plan(checkpoint, projector=True)
    assert len(text.tensors) == n_text
    assert sum(math.prod(t.shape) for t in text.tensors) == n_weights
    assert len(projector.tensors) == n_projector
    assert len(text.tensors) + len(projector.tensors) == len(checkpoint.tensors)


def test_the_published_size_of_a_projector(vl: Path) -> None:
    """All but a few hundred bytes, which its model card accounts for."""
    plan = make_plan(_true("LFM2.5-VL-1.6B", vl), projector=True)
    bf16, f32 = GGML[GGMLType.BF16], GGMLType.F32
    sources = []
    for t in plan.tensors:
        n_rows = math.prod(t.shape[:-1])
        part = Part(t.name, StoredRows(vl, 0, bf16, (n_rows, t.shape[-1])), 0, n_rows)
        sources.append(SourceTensor(t.name, t.shape, (part,), f32))
    (path,) = target_paths(plan.metadata, ["Q8_0"], vl)
    name, nbytes = PUBLISHED_PROJECTOR
    assert path.name == name
    size = draft(Model(plan.metadata, sources, 0), path, FileType.Q8_0, Recipe()).layout.size
    assert 0 <= nbytes - size < 1000


def test_the_plan_of_the_real_audio_model(vl: Path) -> None:
    """Every tensor of the published shapes has its place; there are no weights to be read."""
    path = real("configs/partial/LFM2.5-Audio-1.5B.json")
    true = json.loads(path.read_text()) | {"tie_audio_embeddings": False}
    infos = {
        name: TensorInfo(name, "BF16", shape, vl / "model.safetensors", 0)
        for name, shape in (audio_shapes(true | {"depthformer": {"dim": 1024}})).items()
    }
    checkpoint = Checkpoint(vl, "LFM2.5-Audio-1.5B", true, infos)
    text, projector = make_plan(checkpoint), make_plan(checkpoint, projector=True)
    assert len(text.tensors) == 148
    assert sum(math.prod(t.shape) for t in text.tensors) == 1_170_340_608
    assert len(projector.tensors) == 10 + 2 + 6 + 17 * 37 + 3


def _true(name: str, folder: Path) -> Checkpoint:
    """A checkpoint of true shapes and no weights; the folder has tokenizer and settings."""
    path = real(f"configs/partial/{name}.json")
    true = published(json.loads(path.read_text()))
    infos = {
        name: TensorInfo(name, "BF16", shape, folder / "model.safetensors", 0)
        for name, shape in vl_shapes(true, PUBLISHED).items()
    }
    return Checkpoint(folder, name, true, infos)


def _edit(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        content = json.loads(path.read_text())
        for key, value in changes.items():
            outer, _, inner = key.partition("__")
            if inner:
                content[outer][inner] = value
            else:
                content[outer] = value
        write_json(path, content)

    return edit


def _processor(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "preprocessor_config.json"
        write_json(path, json.loads(path.read_text()) | changes)

    return edit


def _without_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def _other_modules(folder: Path) -> None:
    write_safetensors(
        folder / "model-x.safetensors", {"model.resampler.weight": np.ones((2, 2), np.float32)}
    )


REFUSED: dict[str, tuple[Callable[[Path], None], type[Lfm2ggufError], str]] = {
    "another activation": (
        _edit(projector_hidden_act="relu"), UnsupportedError, "projector_hidden_act is 'relu'",
    ),
    "no biases": (_edit(projector_bias=False), UnsupportedError, "projector_bias is False"),
    "another size": (_edit(projector_hidden_size=96), CheckpointError, "linear_1.weight"),
    "another tower": (
        _edit(vision_config__hidden_act="quick_gelu"), UnsupportedError, "quick_gelu",
    ),
    "another text model": (
        _edit(text_config__model_type="llama"), UnsupportedError, "text_config is 'llama'",
    ),
    "a text model of several kinds": (
        _edit(text_config__model_type=["lfm2"]), CheckpointError, "model_type is",
    ),
    "several layers": (
        _edit(vision_feature_layer=[-1, -2]), CheckpointError, "vision_feature_layer is",
    ),
    "a layer from the front": (
        _edit(vision_feature_layer=1), UnsupportedError, "counted from the end",
    ),
    "a layer too far from the end": (
        _edit(vision_feature_layer=-4), CheckpointError, "vision_feature_layer is -4",
    ),
    "a processor that is a list": (
        _processor(image_processor=[1]), CheckpointError, "preprocessor_config.json: image_proc",
    ),
    "one channel": (_processor(image_mean=[0.5]), CheckpointError, "as 3 numbers"),
    "no text model": (_edit(text_config=None), CheckpointError, "'text_config' is missing"),
    "no tower": (_edit(vision_config=[]), CheckpointError, "'vision_config' is missing"),
    "no settings for pixels": (_without_processor, CheckpointError, "image_mean"),
    "a module that nothing is known of": (
        _other_modules, CheckpointError, "'model.resampler.weight' does not belong",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, tmp_path: Path) -> None:
    damage, error, message = REFUSED[what]
    source = make_multimodal(VL_CASES["LFM2-VL-450M"], tmp_path / "LFM2-VL-450M")
    damage(source)
    with pytest.raises(error, match=message.replace("(", r"\(")):
        convert(source, tmp_path / "out.gguf", projector=True, jobs=1)
    assert not list(tmp_path.glob("*.gguf*"))


def test_a_layer_may_be_a_list_of_one(vl: Path, tmp_path: Path) -> None:
    source = make_multimodal(VL_CASES[vl.name], tmp_path / vl.name)
    blocks = []
    for layer in (-2, [-2]):
        _edit(vision_feature_layer=layer)(source)
        file = convert(source, tmp_path / "out.gguf", projector=True, overwrite=True).files[0].path
        blocks.append(GGUFFile.open(file).get("clip.vision.block_count"))
    assert blocks == [2, 2]


@pytest.mark.parametrize("sizes", [[], [64, 64], ["64"]])
def test_an_audio_adapter_has_one_hidden_layer(sizes: list[Any], tmp_path: Path) -> None:
    source = make_multimodal(CASES["LFM2.5-Audio-1.5B"], tmp_path / "LFM2.5-Audio-1.5B")
    _edit(adapter_hidden_dims=sizes)(source)
    with pytest.raises(Lfm2ggufError, match="adapter_hidden_dims"):
        convert(source, tmp_path / "out.gguf", projector=True)


def test_a_width_of_audio_that_llama_cpp_does_not_run(tmp_path: Path) -> None:
    """It aborts there; the conversion is sound, and says it."""
    source = make_multimodal(CASES["LFM2.5-Audio-1.5B"], tmp_path / "LFM2.5-Audio-1.5B")
    (note,) = convert(source, tmp_path / "out.gguf", projector=True).notes
    assert "(d_model) is 64" in note
    assert convert(source, tmp_path / "text.gguf").notes == ()


def test_a_text_model_has_no_projector(small: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is one file, without a projector"):
        convert(small, tmp_path, projector=True)


def test_a_projector_has_no_importance_matrix(vl: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="IQ2_XXS needs an importance matrix"):
        convert(vl, tmp_path, "IQ2_XXS", projector=True)


def test_the_pooling_head_is_left_out(tmp_path: Path) -> None:
    """Some towers were saved with it; LFM2-VL does not use it."""
    base = VL_CASES["LFM2-VL-450M"]
    head = {"model.vision_tower.vision_model.head.probe": (1, 1, 64)}
    source = make_multimodal(
        Case(base.config, base.shapes | head, beside=base.beside), tmp_path / "VL"
    )
    assert "pooling head" in convert(source, tmp_path, projector=True).left_out[next(iter(head))]
