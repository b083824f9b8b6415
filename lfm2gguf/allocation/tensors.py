"""The tensors whose types are free: what each type costs, and the choice among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lfm2gguf.allocation.budget import Budget
from lfm2gguf.allocation.choice import Choice, Option, nbytes, smallest, within_bytes, within_loss
from lfm2gguf.allocation.devices import FILE_TYPES
from lfm2gguf.allocation.rounding import Importance, importance_of, relative_losses, rounded
from lfm2gguf.allocation.sensitivity import Read, Sensitivity
from lfm2gguf.calibration import CalibrationMaterial, calibrated_rows, quantized_names
from lfm2gguf.conversion import Draft, Recipe, fitting
from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.imatrix import ImportanceMatrix
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import Array
from lfm2gguf.verification import ReferenceModel

TRIES = 6  # of a choice whose measured loss is to meet a limit
SLACK = 0.03  # of the limit, that a choice need not use up
# The same where each try is a calibration; the first one's guess is what calibration leaves of the
# loss on the example model (examples/fidelity).
CALIBRATED_TRIES, CALIBRATED_SLACK, CALIBRATED_SHARE = 4, 0.1, 0.6
ALIGNMENT = 32  # bytes that tensors begin at multiples of


@dataclass(frozen=True)
class FreeTensors:
    """The tensors whose types are free, and what their choice needs."""

    model: ReferenceModel
    draft: Draft  # with the base's types
    recipe: Recipe
    budget: Budget
    names: Mapping[str, str]  # the reference's names of all quantized tensors -> the GGUF's
    types: Mapping[str, tuple[GGMLType, ...]]  # of the free ones by the GGUF's names
    importance: Mapping[str, Importance]
    weighted: bool  # by an importance matrix
    calibrated_on: CalibrationMaterial | None = None  # where the file will be

    @classmethod
    def of(
        cls,
        model: ReferenceModel,
        draft: Draft,
        recipe: Recipe,
        fast: Sequence[GGMLType],
        budget: Budget,
        matrix: ImportanceMatrix | None,
        calibrated_on: CalibrationMaterial | None = None,
    ) -> FreeTensors:
        """Leave those out whose types the recipe names."""
        overrides = recipe.overrides
        names = quantized_names(model, draft)
        shapes = {theirs: model.weights.shapes[ours] for ours, theirs in names.items()}
        types = {
            name: tuple(dict.fromkeys(fitting(name, type, shape[-1]) for type in fast))
            for name, shape in shapes.items()
            if not overrides.names(name)
        }
        if not types:
            raise OptionError("the types of all tensors are named; there is none to choose")
        importance = {name: importance_of(matrix, name, shape) for name, shape in shapes.items()}
        weighted = matrix is not None
        return cls(model, draft, recipe, budget, names, types, importance, weighted, calibrated_on)

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
                [ours for ours, theirs in self.names.items() if theirs in self.types],
                self._reader(probes),
                counting(progress, "measuring", "tensors"),
            )
        }
        sizes = self._sizes()
        tensors = {}
        for ours, theirs in self.names.items():
            if theirs not in self.types:
                continue
            losses = relative_losses(
                weights, ours, self.types[theirs], self.importance[theirs], weighted=self.weighted
            )
            one = losses[probes[theirs]]
            scale = measured[theirs] / one if one else 0.0
            tensors[theirs] = [
                Option(type, size, scale * losses[type]) for type, size in sizes[theirs]
            ]
        return tensors

    def choose(
        self,
        tensors: Mapping[str, Sequence[Option]],
        sensitivity: Sensitivity,
        drafted: Callable[[Recipe], Draft],
        progress: ProgressCallback | None = None,
    ) -> tuple[Choice, float]:
        """Choose, and measure the choice as a whole.

        What is to meet a quality is measured as the file will be rounded: calibrated, if it will.
        """
        if self.room is not None:
            chosen = within_bytes(tensors, self.room)
            return chosen, self._measure(chosen, sensitivity)
        limit = self.budget.kld
        assert limit is not None
        if self.calibrated_on is None:
            return self._within(
                limit, limit, tensors, lambda chosen: self._measure(chosen, sensitivity)
            )

        def calibrated(chosen: Choice) -> float:
            assert self.calibrated_on is not None
            draft = drafted(self._recipe(chosen))
            with calibrated_rows(self.model, draft, self.calibrated_on, progress) as read:
                return sensitivity.together(self.names, read)

        return self._within(
            limit, limit / CALIBRATED_SHARE, tensors, calibrated, CALIBRATED_TRIES, CALIBRATED_SLACK
        )

    def _within(
        self,
        limit: float,
        most: float,
        tensors: Mapping[str, Sequence[Option]],
        measure: Callable[[Choice], float],
        tries: int = TRIES,
        slack: float = SLACK,
    ) -> tuple[Choice, float]:
        """Return the smallest choice found whose measured loss is at most ``limit``.

        ``most`` is the sum of the tensors' losses that is tried first.
        """
        best: tuple[Choice, float] | None = None
        for _ in range(tries):
            chosen = within_loss(tensors, most)
            measured = measure(chosen)
            if measured <= limit and (best is None or nbytes(chosen) < nbytes(best[0])):
                best = chosen, measured
            if limit * (1 - slack) <= measured <= limit or not measured:
                break
            most *= limit / measured
        if best is None:
            raise OptionError(
                f"kld (--kld): {limit:g} is not reached; the best that these types give is "
                f"{measured:.6f}"
            )
        return best

    def fitted(
        self,
        tensors: Mapping[str, Sequence[Option]],
        chosen: Choice,
        drafted: Callable[[Recipe], Draft],
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

    def _probe(self, types: Sequence[GGMLType]) -> GGMLType:
        """Return the type that a tensor is measured at: the one nearest to the budget's bits."""
        weights = sum(int(np.prod(t.shape)) for t in self.draft.tensors if t.name in self.types)
        bits = GGMLType.Q4_K.bits_per_weight if self.room is None else 8 * self.room / weights
        return min(types, key=lambda type: abs(type.bits_per_weight - bits))

    def _reader(self, types: Mapping[str, GGMLType]) -> Read:
        def read(name: str, start: int, stop: int) -> Array:
            weight = self.model.weights.read(name, start, stop)
            importance = self.importance[self.names[name]]
            if importance.ndim == 3:
                importance = importance[start:stop]
            type = types[self.names[name]]
            return rounded(weight, type, importance, weighted=self.weighted)

        return read

    def _measure(self, chosen: Choice, sensitivity: Sensitivity) -> float:
        named = {tensor.name: tensor.type for tensor in self.draft.tensors}
        types = named | {name: option.type for name, option in chosen.items()}
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


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
