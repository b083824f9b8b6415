"""Files of every type, against what llama-quantize makes (golden/make_mixtures.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lfm2gguf import GGUFFile, convert, quantize
from lfm2gguf.conversion import Recipe, plan_quantization
from lfm2gguf.errors import OptionError
from lfm2gguf.gguf_file import Metadata
from tests.conversion.test_parity import ROOT
from tests.golden.summary import digest
from tests.making.checkpoints import make
from tests.making.lanes import WEEKLY
from tests.making.mixture_cases import MODELS, describe, importance, label, recipe, wanted

GOLDEN = json.loads((ROOT / "tests/golden/mixtures.json").read_text())["cases"]
# Kernels that search a grid take about a second for each of these small models' files.
SLOW = ("IQ1", "IQ2", "IQ3")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mixtures")
    paths = {name: folder / str(i) / "whole.gguf" for i, name in enumerate(MODELS)}
    for name, path in paths.items():  # a model's name is its folder's
        convert(make(MODELS[name], path.with_name("model")), path, "F32", jobs=1)
    return paths


@pytest.mark.parametrize(
    ("model", "want"),
    [
        pytest.param(
            model,
            want,
            marks=WEEKLY * want[0].startswith(SLOW),
            id=f"{model}-{label(want)}",
        )
        for model in MODELS
        for want in wanted(model)
    ],
)
def test_every_file_is_what_llama_quantize_writes(
    model: str, want: Any, sources: dict[str, Path], tmp_path: Path
) -> None:
    known = GOLDEN[model][label(want)]
    given = importance(GGUFFile.open(sources[model]))
    target = tmp_path / "a.gguf"
    if known is None:
        with pytest.raises(OptionError, match=r"needs an importance matrix|take its place|another"):
            quantize(sources[model], target, recipe(want, given), jobs=1)
        return
    plan = plan_quantization(sources[model], target, recipe(want, given))
    # An importance matrix's keys are written by llama-quantize's main, not by the function.
    drafts = [replace(draft, metadata=_without_matrix(draft.metadata)) for draft in plan.drafts]
    replace(plan, drafts=tuple(drafts)).write(jobs=1)
    assert describe(target) == known["types"]
    assert digest(target.read_bytes()) == known["sha256"]


def _without_matrix(metadata: Metadata) -> Metadata:
    return {k: v for k, v in metadata.items() if not k.startswith("quantize.imatrix.")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tensor_type": ["ffn_down"]}, "'ffn_down' is not REGEX=TYPE"),
        ({"tensor_type": ["=Q8_0"]}, "is not REGEX=TYPE"),
        ({"tensor_type": ["ffn_(=Q8_0"]}, "not a valid regular expression"),
        ({"tensor_type": ["ffn=Q4K"]}, "did you mean Q4_K"),
        ({"output_tensor_type": "Q8_K"}, r"--output-tensor-type\): unknown tensor type 'Q8_K'"),
        ({"token_embedding_type": "q9"}, "--token-embedding-type"),
    ],
)
def test_types_of_tensors_that_cannot_be(
    options: dict[str, Any], words: str, sources: dict[str, Path]
) -> None:
    with pytest.raises(OptionError, match=words):
        plan_quantization(next(iter(sources.values())), None, Recipe("Q4_K_M", **options))


def test_a_type_that_rows_do_not_divide_into(sources: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="do not divide into Q4_K's blocks of 256"):
        plan_quantization(sources["rows of 16"], None, Recipe("Q8_0", token_embedding_type="Q4_K"))
