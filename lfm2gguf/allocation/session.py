"""Types under a budget: measured, chosen, and the choice measured as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf.allocation.budget import Budget
from lfm2gguf.allocation.choice import Option
from lfm2gguf.allocation.devices import DEFAULT_DEVICE, fast_types
from lfm2gguf.allocation.sensitivity import Sensitivity
from lfm2gguf.allocation.tensors import FreeTensors
from lfm2gguf.calibration import (
    DEFAULT_CHUNKS,
    OWN_TEXT,
    about,
    calibration_material,
    matrix_of,
    products_for,
    shares,
    with_own_text,
)
from lfm2gguf.conversion import Draft, Recipe, plan
from lfm2gguf.errors import OptionError, UnsupportedError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.reference import Ids
from lfm2gguf.verification import open_reference
from lfm2gguf.version import __version__

SAMPLED = 8  # sequences, from all over the text, on which tensors are measured
BASE = "Q4_K_M"  # any file type would do: every tensor's own type is named
KEY = "lfm2gguf.allocation."  # metadata of ours, which llama.cpp passes over


@dataclass(frozen=True)
class AllocatedTensor:
    """A tensor's type, and the mean KL divergence (nats) that its rounding alone causes."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    nbytes: int
    kld: float


@dataclass(frozen=True)
class Allocation:
    """Types chosen for a budget.

    ``recipe`` makes the file. ``predicted`` sums the tensors' losses, and ``measured`` is the
    whole model's mean KL divergence on the same ``positions``: its weights rounded without
    calibration, but for a budget of KL divergence as the file's will be.
    """

    recipe: Recipe
    tensors: tuple[AllocatedTensor, ...]
    nbytes: int
    bits_per_weight: float
    predicted: float
    measured: float
    positions: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON knows them."""
        return {
            "bytes": self.nbytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "kld_predicted": self.predicted,
            "kld_measured": self.measured,
            "positions": self.positions,
            "tensors": [
                {"name": t.name, "shape": list(t.shape), "type": t.type.name, "bytes": t.nbytes,
                 "kld": t.kld}
                for t in self.tensors
            ],
        }  # fmt: skip


@numbers_checked
def allocate(
    source: str | Path,
    budget: Budget,
    recipe: Recipe | None = None,
    *,
    device: str = DEFAULT_DEVICE,
    texts: str | Path | Iterable[str | Path] = (),
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = 512,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    own_text: float = OWN_TEXT,
    progress: ProgressCallback | None = None,
) -> Allocation:
    """Choose the type of every tensor of a checkpoint under a budget; nothing is written.

    Each tensor is rounded alone and the change of the predictions measured; what its other types
    would do follows from their weighted errors. The bytes go where they buy most.

    Args:
        source: a checkpoint folder, or a Hub id.
        budget: bytes, bits per weight, or a KL divergence.
        recipe: what else is asked of the file. Tensors whose types it names keep them; its
            importance matrix weighs the errors; if it will be calibrated, one is computed, and
            what is measured is text that it is not calibrated on.
        device: the types must run fast there: cpu, cuda, vulkan or metal.
        texts: UTF-8 files to measure on; by default the bundled mixture.
        chat: conversations as JSON in any usual form, rendered by the model's own template.
        chunks: at most so many chunks of each text; None for all. A few from all over are used.
        ctx: tokens of a chunk.
        revision: branch, tag or commit of a Hub repository.
        pre: name of the pre-tokenizer, as :func:`~lfm2gguf.convert` takes it.
        lora: an adapter's folder or Hub id, merged first.
        own_text: as :func:`~lfm2gguf.calibrate` takes it.
        progress: called with a :class:`~lfm2gguf.Progress` after each tensor.

    Raises:
        OptionError: nothing fits the budget, or it cannot be read with the recipe.
        UnsupportedError: a retrieval model, which predicts no text.
        Lfm2ggufError: as :func:`~lfm2gguf.convert`.

    """
    recipe = recipe or Recipe()
    if recipe.type is not None or recipe.pure:
        raise OptionError(
            "a budget (--size, --bpw, --kld) chooses the types; leave type (--type) and pure "
            "(--pure) out"
        )
    types = fast_types(device)
    model = open_reference(source, revision, lora)
    if model.retrieval:
        raise UnsupportedError(
            f"{source}: is a retrieval model; types are chosen by what they do to the prediction "
            "of text. Convert it with a type (--type)"
        )
    material = calibration_material(model, texts, chat=chat, chunks=chunks, ctx=ctx)
    said = {
        "budget": str(budget),
        "device": device,
        "datasets": ", ".join(material.names),
        "sha256": material.digest,
        "version": __version__,
    }
    keys: dict[str, str | int] = {KEY + key: text for key, text in said.items()}
    matrix, used, measured_on = recipe.imatrix, None, material
    if recipe.calibrated:
        used, measured_on = shares(model, material, ctx, own_text)
        products = products_for()
        used = with_own_text(model, used, progress, products=products)
        keys |= about(used, products)
        matrix = matrix_of(model, used, ctx, progress=progress)
    recipe = replace(recipe, type=BASE, label=str(budget), about={**recipe.about, **keys})

    def drafted(recipe: Recipe) -> Draft:
        [draft] = plan(source, None, recipe, revision=revision, pre=pre, lora=lora).drafts
        return draft

    free = FreeTensors.of(model, drafted(recipe), recipe, types, budget, matrix, used)
    free.check_room()
    sequences = _spread(measured_on.sequences, SAMPLED)
    sensitivity = Sensitivity(model.weights, sequences)
    tensors = free.options(sensitivity, progress)
    chosen, measured = free.choose(tensors, sensitivity, drafted, progress)
    recipe, draft = free.fitted(tensors, chosen, drafted)
    return _allocation(free, recipe, draft, tensors, measured, len(sensitivity.targets))


def _spread(sequences: Sequence[Ids], count: int) -> list[Ids]:
    """Return some sequences from all over a text that is a mixture."""
    chosen = np.linspace(0, len(sequences), min(count, len(sequences)), endpoint=False)
    return [sequences[int(i)] for i in chosen]


def _allocation(
    free: FreeTensors,
    recipe: Recipe,
    draft: Draft,
    tensors: Mapping[str, Sequence[Option]],
    measured: float,
    positions: int,
) -> Allocation:
    known = {name: {o.type: o.kld for o in options} for name, options in tensors.items()}
    rows = tuple(
        AllocatedTensor(t.name, t.shape, t.type, t.nbytes, known[t.name][t.type])
        for t in draft.tensors
        if t.name in known
    )
    notes = []
    largest = sum(max(o.nbytes for o in options) for options in tensors.values())
    if free.room is not None and free.room > largest:
        notes.append(f"{free.budget} is more than the largest of these types needs")
    return Allocation(
        recipe, rows, draft.nbytes, draft.bits_per_weight,
        sum(row.kld for row in rows), measured, positions, tuple(notes),
    )  # fmt: skip
