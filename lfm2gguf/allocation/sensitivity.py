"""What rounding one tensor does to what the model predicts: measured, one tensor at a time.

The checkpoint's residual goes through the layers once. At each layer, for each of its tensors, a
copy goes on from there with that one tensor rounded, and what the head then predicts is compared.
Memory is one layer and a few thousand tokens' residuals, however large the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lfm2gguf.progress import Count
from lfm2gguf.reference import EMBEDDING, HEAD, Array, Ids, Steps, Weights
from lfm2gguf.verification import score

ROWS = 512  # positions whose logits are held together

Read = Callable[[str, int, int], Array]  # rows of a tensor, rounded


class Sensitivity:
    """The checkpoint on some sequences, and models that differ from it in some tensors."""

    def __init__(self, weights: Weights, sequences: Sequence[Ids]) -> None:
        self.weights, self.steps = weights, Steps(weights)
        self.lengths = [len(ids) for ids in sequences]
        self.ids = np.concatenate(sequences)
        starts = np.cumsum([0, *self.lengths[:-1]])
        spans = zip(starts, self.lengths, strict=True)  # the second half is scored, as ever
        self.positions = np.concatenate([np.arange(a + n // 2, a + n - 1) for a, n in spans])
        self.targets = self.ids[self.positions + 1]
        self.layers = len(weights.config.layers)
        self.exact = self._final(self.steps, self.steps.embed(self.ids), 0)

    def one_by_one(
        self, names: Sequence[str], read: Read, progress: Count | None = None
    ) -> Iterator[tuple[str, float]]:
        """Give each tensor's name with the mean KL divergence (nats) of it alone rounded."""
        done = 0
        x = self.steps.embed(self.ids)
        for place in (None, *range(self.layers), self.layers):
            for name in self._at(place, names):
                if progress:
                    progress(done, len(names))
                changed = Steps(self.weights.replaced({name}, read))
                if place == self.layers:  # only the head
                    kld = self._divergence(changed, self.exact)
                else:
                    y = changed.embed(self.ids) if place is None else x.copy()
                    kld = self._divergence(changed, self._final(changed, y, place or 0))
                yield name, kld
                done += 1
            if place is not None and place < self.layers:
                self.steps.layer(place, x, self.lengths)
        if progress:
            progress(done, len(names))

    def together(self, names: Mapping[str, object], read: Read) -> float:
        """Return the mean KL divergence of all these tensors rounded."""
        changed = Steps(self.weights.replaced(names, read))
        return self._divergence(changed, self._final(changed, changed.embed(self.ids), 0))

    def _at(self, place: int | None, names: Sequence[str]) -> list[str]:
        """Return the tensors that a pass meets first at the embedding, in a layer, or at the head.

        The embedding is met first of all, whatever its part as the head.
        """
        if place is None:
            return [name for name in names if name == EMBEDDING]
        if place == self.layers:
            return [name for name in names if name == HEAD]
        return [name for name in names if name.startswith(f"model.layers.{place}.")]

    def _final(self, steps: Steps, x: Array, first: int) -> Array:
        """Take the residual through the layers from ``first`` on; return what is scored."""
        for i in range(first, self.layers):
            steps.layer(i, x, self.lengths)
        return steps.final(x[self.positions])

    def _divergence(self, other: Steps, states: Array) -> float:
        total = np.float64(0)
        for start in range(0, len(self.targets), ROWS):
            part = slice(start, start + ROWS)
            exact, found = self.steps.logits(self.exact[part]), other.logits(states[part])
            scores: npt.NDArray[np.float64] = score(exact, found, self.targets[part]).kld
            total += scores.sum()
        return float(total / len(self.targets))
