"""Types under a budget: what is measured is what the reference says, and the file fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lfm2gguf
from lfm2gguf.allocation import FAST_TYPES, Allocation, Budget, allocate
from lfm2gguf.allocation.sensitivity import Sensitivity
from lfm2gguf.calibration import calibrate, collect_imatrix
from lfm2gguf.conversion import Recipe
from lfm2gguf.errors import OptionError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.reference import Array, Reference
from lfm2gguf.verification import open_reference, score
from tests.making.checkpoints import MOE, WIDE, Case, config, make

SETTINGS = {"ctx": 32, "chunks": 8}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("abc def gh. " * 300)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = Case(config(**WIDE), dtype="F32")
    return make(case, tmp_path_factory.mktemp("source") / "LFM2-Small")


@pytest.fixture(scope="module")
def at_four_bits(source: Path, text: Path) -> Allocation:
    return allocate(source, Budget(bits_per_weight=4.6), texts=[text], **SETTINGS)


@pytest.mark.parametrize(
    "kind", ["dense", "untied", pytest.param("experts", marks=pytest.mark.slow)]
)
def test_one_tensor_alone(kind: str, tmp_path: Path) -> None:
    """Each figure is that of a whole forward pass with the one tensor changed."""
    changes = {"dense": config(), "untied": config(tie_word_embeddings=False), "experts": MOE}
    model = open_reference(make(Case(changes[kind], dtype="F32"), tmp_path / "LFM2-Small"))
    rng = np.random.default_rng(1)
    sequences = [rng.integers(1, 255, n).astype(np.int32) for n in (20, 33)]
    positions = [np.arange(n // 2, n - 1) for n in (20, 33)]
    targets = np.concatenate([s[p + 1] for s, p in zip(sequences, positions, strict=True)])

    def read(name: str, start: int, stop: int) -> Array:
        return np.float32(1.5) * model.weights.read(name, start, stop)

    names = [name for name, shape in model.weights.shapes.items()
             if len(shape) > 1 and "conv.conv" not in name and ".gate." not in name]  # fmt: skip
    found = dict(Sensitivity(model.weights, sequences).one_by_one(names, read))
    assert found.keys() == set(names)
    exact = Reference(model.weights)
    logits = exact.logits(exact.states(sequences, positions))
    for name in names:
        other = Reference(model.weights.replaced({name}, read))
        expected = score(logits, other.logits(other.states(sequences, positions)), targets).kld
        assert found[name] == pytest.approx(expected.mean(), rel=1e-3, abs=1e-9), name


def test_the_file_is_what_was_chosen(
    source: Path, at_four_bits: Allocation, tmp_path: Path
) -> None:
    made = lfm2gguf.convert(source, tmp_path, at_four_bits.recipe).files[0]
    file = GGUFFile.open(made.path)
    assert made.path.name.endswith("-4.6bpw.gguf")
    assert made.nbytes == at_four_bits.nbytes == made.path.stat().st_size
    assert made.bits_per_weight <= 4.6
    assert {t.name: t.type for t in at_four_bits.tensors} == {
        name: info.type for name, info in file.tensors.items() if info.type.is_quantized
    }
    assert {t.type for t in at_four_bits.tensors} <= set(FAST_TYPES["cpu"])
    assert file.get("lfm2gguf.allocation.budget") == "4.6bpw"
    # The sum of single losses is near to the whole's: that is what the choice relies on.
    assert at_four_bits.predicted == pytest.approx(at_four_bits.measured, rel=0.5)


@pytest.mark.slow
def test_it_is_better_than_the_mixture_of_its_size(source: Path, text: Path) -> None:
    plain = lfm2gguf.plan(source, None, "Q4_K_M").drafts[0]
    made = allocate(source, Budget(nbytes=plain.nbytes), texts=[text], **SETTINGS)
    first, *others = (t for t in plain.tensors if t.type.is_quantized)
    fixed = Recipe(tensor_type=[f"^{t.name}$={t.type.name}" for t in others])
    room = Budget(nbytes=2 * plain.nbytes)  # for the first, which costs nothing then
    mixture = allocate(source, room, fixed, texts=[text], **SETTINGS)
    assert [t.name for t in mixture.tensors] == [first.name]
    assert made.measured < mixture.measured
    assert made.nbytes <= plain.nbytes


@pytest.mark.slow
def test_a_quality_is_reached(source: Path, at_four_bits: Allocation, text: Path) -> None:
    limit = at_four_bits.measured / 2
    made = allocate(source, Budget(kld=limit), texts=[text], **SETTINGS)
    assert made.measured <= limit
    assert made.nbytes > at_four_bits.nbytes


@pytest.mark.slow
def test_a_quality_is_reached_as_the_file_will_be_rounded(
    source: Path, at_four_bits: Allocation, text: Path, tmp_path: Path
) -> None:
    """What a calibrated choice is measured at is what the calibrated file then has."""
    limit = at_four_bits.measured / 2
    # Eight chunks are kept aside, and judge both times. With its own text as well the smallest
    # types lose a quarter of the limit, and no choice comes near to it.
    settings: dict[str, Any] = {"ctx": 32, "chunks": 64, "own_text": 0}
    plain, ours = (
        allocate(source, Budget(kld=limit), Recipe(calibrated=c), texts=[text], **settings)
        for c in (False, True)
    )
    assert limit / 2 < ours.measured <= limit
    assert ours.nbytes < plain.nbytes
    made = calibrate(source, tmp_path, ours.recipe, texts=[text], **settings)
    assert made.conversion.files[0].nbytes == ours.nbytes
    assert made.judgement.calibrated == pytest.approx(ours.measured, rel=1e-4)


@pytest.mark.slow
def test_named_types_stay_and_splits_count(source: Path, text: Path, tmp_path: Path) -> None:
    recipe = Recipe(tensor_type=["ffn_down=Q8_0"], token_embedding_type="Q6_K", split_max_size="1M")
    budget = Budget(bits_per_weight=6)
    made = allocate(source, budget, recipe, device="cuda", texts=[text], **SETTINGS)
    assert not [t.name for t in made.tensors if "ffn_down" in t.name or "embd" in t.name]
    written = lfm2gguf.convert(source, tmp_path, made.recipe).files[0]
    assert written.nbytes == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert written.bits_per_weight <= 6
    types = {name: info.type.name for name, info in GGUFFile.open(written.path).tensors.items()}
    assert {t for name, t in types.items() if "ffn_down" in name} == {"Q8_0"}
    assert types["token_embd.weight"] == "Q6_K"


@pytest.mark.slow
def test_with_importance_and_calibrated(text: Path, tmp_path: Path) -> None:
    """A mixture of experts, by an importance matrix, and then calibrated in the same bytes."""
    source = make(Case(MOE, dtype="F32"), tmp_path / "LFM2-Moe")
    matrix = collect_imatrix(source, [text], **SETTINGS)
    budget = Budget(bits_per_weight=5)
    weighed = allocate(source, budget, Recipe(imatrix=matrix), texts=[text], **SETTINGS)
    assert weighed.recipe.imatrix is matrix
    assert any("_exps" in t.name for t in weighed.tensors)
    ours = allocate(source, budget, Recipe(calibrated=True), texts=[text], **SETTINGS)
    (tmp_path / "out").mkdir()
    made = calibrate(source, tmp_path / "out", ours.recipe, texts=[text], **SETTINGS)
    file = made.conversion.files[0]
    assert file.nbytes == ours.nbytes
    assert file.bits_per_weight <= 5


@pytest.mark.parametrize(
    ("budget", "recipe", "device", "message"),
    [
        (Budget(bits_per_weight=1), None, "cpu", "nothing fits; the smallest file"),
        (Budget(nbytes=10), None, "cpu", "nothing fits"),
        (Budget(kld=1e-12), None, "cpu", "is not reached"),
        (Budget(bits_per_weight=5), Recipe("Q4_K_M"), "cpu", "leave type"),
        (Budget(bits_per_weight=5), None, "tpu", "'tpu' is not one of"),
        (Budget(bits_per_weight=5), Recipe(tensor_type=[".=Q8_0"]), "cpu", "none to choose"),
    ],
)
def test_what_cannot_be(
    budget: Budget, recipe: Recipe | None, device: str, message: str, source: Path, text: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        allocate(source, budget, recipe, device=device, texts=[text], **SETTINGS)


def test_more_than_enough_is_said(source: Path, text: Path) -> None:
    made = allocate(source, Budget(bits_per_weight=30), texts=[text], **SETTINGS)
    assert {t.type.name for t in made.tensors} == {"Q8_0"}
    assert "more than the largest" in made.notes[0]
