"""Types under a budget: measured, chosen, and the choice measured as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf.allocation.budget import Budget
from lfm2gguf.allocation.choice import (
    Choice,
    Option,
    loss,
    nbytes,
    smallest,
    within_bytes,
    within_loss,
)
from lfm2gguf.allocation.devices import DEFAULT_DEVICE, FILE_TYPES, fast_types
from lfm2gguf.allocation.rounding import Importance, importance_of, relative_losses, rounded
from lfm2gguf.allocation.sensitivity import Sensitivity
from lfm2gguf.calibration import DEFAULT_CHUNKS, calibration_material, quantized_names
from lfm2gguf.conversion import Draft, Recipe, fitting, plan
from lfm2gguf.errors import OptionError, UnsupportedError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import Array, Ids
from lfm2gguf.verification import ReferenceModel, open_reference
from lfm2gguf.version import __version__

SAMPLED = 8  # sequences, from all over the text, on which tensors are measured
BASE = "Q4_K_M"  # any file type would do: every tensor's own type is named
TRIES = 6  # of a choice whose measured loss is to meet a limit
ALIGNMENT = 32  # bytes that tensors begin at multiples of
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
    whole model's mean KL divergence on the same text, its weights rounded without calibration.
    """

    recipe: Recipe
    tensors: tuple[AllocatedTensor, ...]
    nbytes: int
    bits_per_weight: float
    predicted: float
    measured: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON knows them."""
        return {
            "bytes": self.nbytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "kld_predicted": self.predicted,
            "kld_measured": self.measured,
            "tensors": [
                {"name": t.name, "shape": list(t.shape), "type": t.type.name, "bytes": t.nbytes,
                 "kld": t.kld}
                for t in self.tensors
            ],
        }  # fmt: skip


def allocate(
    source: str | Path,
    budget: Budget,
    recipe: Recipe | None = None,
    *,
    device: str = DEFAULT_DEVICE,
    texts: Sequence[str | Path] = (),
    chat: str | Path | None = None,
    chunks: int | None = DEFAULT_CHUNKS,
    ctx: int = 512,
    revision: str | None = None,
    pre: str | None = None,
    lora: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Allocation:
    """Choose the type of every tensor of a checkpoint under a budget; nothing is written.

    Each tensor is rounded alone and the change of the predictions measured; what its other types
    would do follows from their weighted errors. The bytes go where they buy most.

    Args:
        source: a checkpoint folder, or a Hub id.
        budget: bytes, bits per weight, or a KL divergence.
        recipe: what else is asked of the file. Tensors whose types it names keep them; its
            importance matrix weighs the errors.
        device: the types must run fast there: cpu, cuda, vulkan or metal.
        texts: UTF-8 files to measure on; by default the bundled mixture.
        chat: conversations as JSON lines, rendered by the model's own template.
        chunks: at most so many chunks of each text; None for all. A few from all over are used.
        ctx: tokens of a chunk.
        revision: branch, tag or commit of a Hub repository.
        pre: name of the pre-tokenizer, as :func:`~lfm2gguf.convert` takes it.
        lora: an adapter's folder or Hub id, merged first.
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
    about = {
        "budget": str(budget),
        "device": device,
        "datasets": ", ".join(material.names),
        "sha256": material.digest,
        "version": __version__,
    }
    recipe = replace(
        recipe,
        type=BASE,
        label=str(budget),
        about={**recipe.about, **{KEY + key: text for key, text in about.items()}},
    )

    def drafted(recipe: Recipe) -> Draft:
        [draft] = plan(source, None, recipe, revision=revision, pre=pre, lora=lora).drafts
        return draft

    work = _Work.of(model, drafted(recipe), recipe, types, budget)
    work.check_room()
    sequences = _spread(material.sequences, SAMPLED)
    sensitivity = Sensitivity(model.weights, sequences)
    tensors = work.options(sensitivity, progress)
    chosen, measured = work.choose(tensors, sensitivity)
    recipe, draft = work.fitted(tensors, chosen, drafted)
    return work.result(recipe, draft, tensors, measured)


@dataclass(frozen=True)
class _Work:
    """The tensors whose types are free, and what their choice needs."""

    model: ReferenceModel
    draft: Draft  # with the base's types
    recipe: Recipe
    budget: Budget
    names: Mapping[str, str]  # the reference's names of the free tensors -> the GGUF's
    types: Mapping[str, tuple[GGMLType, ...]]  # by the GGUF's names, the smallest first
    importance: Mapping[str, Importance]

    @classmethod
    def of(
        cls,
        model: ReferenceModel,
        draft: Draft,
        recipe: Recipe,
        fast: Sequence[GGMLType],
        budget: Budget,
    ) -> _Work:
        overrides = recipe.overrides
        free = {
            ours: theirs
            for ours, theirs in quantized_names(model, draft).items()
            if not overrides.names(theirs)
        }
        if not free:
            raise OptionError("the types of all tensors are named; there is none to choose")
        shapes = model.weights.shapes
        return cls(
            model, draft, recipe, budget, free,
            {
                theirs: tuple(dict.fromkeys(fitting(theirs, t, shapes[ours][-1]) for t in fast))
                for ours, theirs in free.items()
            },
            {
                theirs: importance_of(recipe.imatrix, theirs, shapes[ours])
                for ours, theirs in free.items()
            },
        )  # fmt: skip

    @property
    def room(self) -> int | None:
        """Bytes that the free tensors may take; None where quality is asked for."""
        most = self.budget.bytes_for(self.draft.n_weights)
        return None if most is None else most - (self.draft.nbytes - self._present)

    @property
    def _present(self) -> int:
        """Bytes that the free tensors take in the draft."""
        free = self.types
        return sum(_padded(t.nbytes) for t in self.draft.tensors if t.name in free)

    def _sizes(self) -> dict[str, list[tuple[GGMLType, int]]]:
        sizes = {}
        for tensor in self.draft.tensors:
            if tensor.name in self.types:
                n = int(np.prod(tensor.shape[:-1]))
                sizes[tensor.name] = [
                    (type, _padded(n * type.row_bytes(tensor.shape[-1])))
                    for type in self.types[tensor.name]
                ]
        return sizes

    def check_room(self) -> None:
        """Refuse a budget that nothing fits, before the hours of measuring."""
        least = sum(min(size for _, size in options) for options in self._sizes().values())
        if self.room is not None and self.room < least:
            nbytes = self.draft.nbytes - self._present + least
            bits = 8 * nbytes / self.draft.n_weights
            raise OptionError(
                f"{self.budget}: nothing fits; the smallest file that can be made has {nbytes} "
                f"bytes ({bits:.2f} bits per weight)"
            )

    def options(
        self, sensitivity: Sensitivity, progress: ProgressCallback | None
    ) -> dict[str, list[Option]]:
        """Measure every free tensor at one type, and derive its other types."""
        weights = self.model.weights
        probes = {name: self._probe(types) for name, types in self.types.items()}
        measured = {
            self.names[name]: kld
            for name, kld in sensitivity.one_by_one(
                list(self.names), self._reader(probes), counting(progress, "measuring", "tensors")
            )
        }
        sizes = self._sizes()
        tensors = {}
        for ours, theirs in self.names.items():
            losses = relative_losses(
                weights, ours, self.types[theirs], self.importance[theirs], weighted=self._weighted
            )
            one = losses[probes[theirs]]
            scale = measured[theirs] / one if one else 0.0
            tensors[theirs] = [
                Option(type, size, scale * losses[type]) for type, size in sizes[theirs]
            ]
        return tensors

    def choose(
        self, tensors: Mapping[str, Sequence[Option]], sensitivity: Sensitivity
    ) -> tuple[Choice, float]:
        """Choose, and measure the choice as a whole."""
        if self.room is not None:
            chosen = within_bytes(tensors, self.room)
            return chosen, self._measure(chosen, sensitivity)
        limit = self.budget.kld
        assert limit is not None
        most = limit
        best: tuple[Choice, float] | None = None
        for _ in range(TRIES):
            chosen = within_loss(tensors, most)
            measured = self._measure(chosen, sensitivity)
            if measured <= limit and (best is None or nbytes(chosen) < nbytes(best[0])):
                best = chosen, measured
            if limit * 0.97 <= measured <= limit or not measured:
                break
            most *= limit / measured
        if best is None:
            raise OptionError(
                f"kld (--kld): {limit:g} is not reached; the best that these types give is "
                f"{measured:.6f}"
            )
        return best

    def fitted(
        self, tensors: Mapping[str, Sequence[Option]], chosen: Choice, drafted: _Drafted
    ) -> tuple[Recipe, Draft]:
        """Return the recipe of the choice, and the file that it drafts, within the budget.

        What splits add to a file's headers is known only then: the choice is made again with as
        much less.
        """
        most = self.budget.bytes_for(self.draft.n_weights)
        room = self.room
        while True:
            recipe = self._recipe(chosen)
            draft = drafted(recipe)
            if most is None or room is None or draft.nbytes <= most:
                return recipe, draft
            room -= draft.nbytes - most
            if nbytes(smallest(tensors)) > room:
                raise OptionError(f"{self.budget}: nothing fits, the headers of the files included")
            chosen = within_bytes(tensors, room)

    def result(
        self,
        recipe: Recipe,
        draft: Draft,
        tensors: Mapping[str, Sequence[Option]],
        measured: float,
    ) -> Allocation:
        known = {name: {o.type: o.kld for o in options} for name, options in tensors.items()}
        rows = tuple(
            AllocatedTensor(t.name, t.shape, t.type, t.nbytes, known[t.name][t.type])
            for t in draft.tensors
            if t.name in known
        )
        notes = []
        largest = sum(max(o.nbytes for o in options) for options in tensors.values())
        if self.room is not None and self.room > largest:
            notes.append(f"{self.budget} is more than the largest of these types needs")
        return Allocation(
            recipe, rows, draft.nbytes, draft.bits_per_weight,
            sum(row.kld for row in rows), measured, tuple(notes),
        )  # fmt: skip

    @property
    def _weighted(self) -> bool:
        return self.recipe.imatrix is not None

    def _probe(self, types: Sequence[GGMLType]) -> GGMLType:
        """Return the type that a tensor is measured at: the one nearest to the budget's bits."""
        weights = sum(
            int(np.prod(t.shape)) for t in self.draft.tensors if t.name in self.types
        )
        bits = GGMLType.Q4_K.bits_per_weight if self.room is None else 8 * self.room / weights
        return min(types, key=lambda type: abs(type.bits_per_weight - bits))

    def _reader(self, types: Mapping[str, GGMLType]) -> Any:
        def read(name: str, start: int, stop: int) -> Array:
            weight = self.model.weights.read(name, start, stop)
            importance = self.importance[self.names[name]]
            if importance.ndim == 3:
                importance = importance[start:stop]
            type = types[self.names[name]]
            return rounded(weight, type, importance, weighted=self._weighted)

        return read

    def _measure(self, chosen: Choice, sensitivity: Sensitivity) -> float:
        types = {name: option.type for name, option in chosen.items()}
        return sensitivity.together(self.names, self._reader(types))

    def _recipe(self, chosen: Choice) -> Recipe:
        """Return the recipe that gives every free tensor its type by its name."""
        weights = Counter[GGMLType]()
        for tensor in self.draft.tensors:
            if tensor.name in chosen:
                weights[chosen[tensor.name].type] += int(np.prod(tensor.shape))
        most = next((t for t, _ in weights.most_common() if t in FILE_TYPES), GGMLType.Q4_K)
        exact = [f"^{name.replace('.', '[.]')}$={o.type.name}" for name, o in chosen.items()]
        return replace(
            self.recipe,
            type=FILE_TYPES[most],
            tensor_type=(*self.recipe.tensor_type, *exact),
        )
