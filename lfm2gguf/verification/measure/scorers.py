"""Where logits and vectors come from: the NumPy forward pass, or llama.cpp.

For logits both are asked for the scored positions of one window of a sample at a time, in
order, so that logits never exist for more than :data:`WINDOW` tokens.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from lfm2gguf import llamacpp
from lfm2gguf.caches import cache_folder
from lfm2gguf.errors import MissingDependencyError
from lfm2gguf.progress import Count
from lfm2gguf.reference import Reference
from lfm2gguf.verification.material.texts import Sample
from lfm2gguf.verification.measure.scores import Scores, score
from lfm2gguf.verification.measure.similarity import Vectors

Logits = npt.NDArray[np.float32]

WINDOW = 512  # tokens of one llama.cpp decode
KEPT_BYTES = 2 << 30  # of a reference's logits, in the folder for caches


class Scorer(Protocol):
    """A model that gives logits (scored positions in start:stop, vocabulary) of a sample."""

    def logits(self, sample: int, start: int, stop: int) -> Logits:
        """Score one window; windows of a sample must be asked for in order."""
        ...


class NumpyScorer:
    """Logits from final hidden states (all scored positions, hidden), computed beforehand.

    With a ``store`` they are multiplied by the head once, for as many passes as there are.
    """

    def __init__(
        self,
        model: Reference,
        samples: Sequence[Sample],
        states: npt.NDArray[np.float32],
        store: LogitsStore | None = None,
    ) -> None:
        self._model = model
        self._samples = samples
        self._states = np.split(states, np.cumsum([len(s.positions) for s in samples])[:-1])
        self._out = np.empty((0, model.weights.vocabulary), np.float32)
        self._store = store

    def logits(self, sample: int, start: int, stop: int) -> Logits:
        """Multiply the window's states by the head; the array is reused by the next call."""
        rows = slice(*np.searchsorted(self._samples[sample].positions, (start, stop)))
        states = self._states[sample][rows]
        if len(states) > len(self._out):
            self._out = np.empty((len(states), self._out.shape[1]), np.float32)
        out = self._out[: len(states)]
        if self._store is None:
            return self._model.logits(states, out)
        if not self._store.load((sample, start), out):
            self._model.logits(states, out)
            self._store.keep((sample, start), out)
        return out


class LogitsStore:
    """Windows' logits in a nameless file, as many as :data:`KEPT_BYTES` and the disk take.

    It is in the folder for caches: the system's temporary files may be held in memory (tmpfs).
    """

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._places: dict[tuple[int, int], int] = {}  # by sample and first token
        self._end = 0

    def close(self) -> None:
        """Give the room back."""
        if self._file is not None:
            self._file.close()

    def load(self, window: tuple[int, int], out: Logits) -> bool:
        """Fill ``out`` with a window's logits; False where they are not there."""
        place = self._places.get(window)
        if place is None or self._file is None:
            return False
        self._file.seek(place)
        return self._file.readinto(out.data) == out.nbytes  # type: ignore[attr-defined, no-any-return]

    def keep(self, window: tuple[int, int], logits: Logits) -> None:
        """Keep a window's logits, where there is room."""
        if self._end + logits.nbytes > KEPT_BYTES:
            return
        with contextlib.suppress(OSError):  # they will be computed again
            self._file = self._file or _nameless()
            self._file.seek(self._end)
            self._file.write(logits.data)
            self._file.flush()
            self._places[window] = self._end
            self._end += logits.nbytes


def _nameless() -> BinaryIO:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)


class LlamaCppScorer:
    """Logits from llama.cpp, on the device asked for."""

    def __init__(
        self, path: Path, samples: Sequence[Sample], device: str = "cpu", threads: int | None = None
    ) -> None:
        self._samples = samples
        self.model = llamacpp.Model(path, on=llamacpp.choose(device))
        self._context = llamacpp.Context(
            self.model,
            n_ctx=max(WINDOW, *(len(sample.ids) for sample in samples)),
            n_batch=WINDOW,
            n_outputs=WINDOW,
            threads=threads,
        )

    def close(self) -> None:
        """Free the context and the weights."""
        self._context.close()
        self.model.close()

    def __enter__(self) -> LlamaCppScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def logits(self, sample: int, start: int, stop: int) -> Logits:
        """Decode one window; the array is llama.cpp's own and lasts until the next call."""
        if start == 0:
            self._context.clear()
        ids, positions = self._samples[sample].ids, self._samples[sample].positions
        wanted = positions[slice(*np.searchsorted(positions, (start, stop)))]
        outputs = stop - int(wanted[0]) if len(wanted) else 0
        tokens = ids[start:stop].tolist()
        self._context.decode([llamacpp.Chunk(0, start, tokens, outputs)])
        if not outputs:
            return np.empty((0, self.model.n_vocab), np.float32)
        found = self._context.logits()
        rows = wanted - wanted[0]
        contiguous = len(rows) == rows[-1] + 1
        return found[: len(rows)] if contiguous else found[rows]


class LlamaCppEmbedder:
    """Vectors from llama.cpp, one sequence at a time, on the device asked for."""

    def __init__(
        self, path: Path, samples: Sequence[Sample], device: str = "cpu", threads: int | None = None
    ) -> None:
        self._samples = samples
        self.model = llamacpp.Model(path, on=llamacpp.choose(device))
        longest = max(len(sample.ids) for sample in samples)  # read in one piece, as both ways ask
        self._context = llamacpp.Context(
            self.model,
            n_ctx=longest,
            n_batch=longest,
            n_ubatch=longest,
            threads=threads,
            embeddings=True,
        )

    def vectors(self, progress: Count | None = None) -> list[Vectors]:
        """Return each sequence's vectors: (1, width) where the file pools, else (tokens, width)."""
        return [self._vectors(i, progress) for i in range(len(self._samples))]

    def _vectors(self, i: int, progress: Count | None) -> Vectors:
        context, ids = self._context, self._samples[i].ids.tolist()
        context.clear()
        context.decode([llamacpp.Chunk(0, 0, ids, len(ids))])
        if progress:
            progress(i + 1, len(self._samples))
        return context.pooled_embedding(0)[None] if context.pools else context.embeddings().copy()

    def __enter__(self) -> LlamaCppEmbedder:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()
        self.model.close()


def compare(
    models: Sequence[Scorer],
    pairs: Sequence[tuple[int, int]],
    samples: Sequence[Sample],
    progress: Count | None = None,
) -> list[Scores]:
    """Score pairs (reference, candidate) of models over all samples, in step.

    Each model computes a window once, however many pairs it is in.
    """
    parts: list[list[Scores]] = [[] for _ in pairs]
    for i, sample in enumerate(samples):
        for start, stop, targets in _windows(sample):
            logits = [model.logits(i, start, stop) for model in models]
            if len(targets):
                for part, (a, b) in zip(parts, pairs, strict=True):
                    part.append(score(logits[a], logits[b], targets))
        if progress:
            progress(i + 1, len(samples))
    return [Scores.join(part) for part in parts]


def _windows(sample: Sample) -> Iterator[tuple[int, int, npt.NDArray[np.int32]]]:
    """Yield windows up to the last scored position, with the targets scored in each."""
    end = int(sample.positions[-1]) + 1
    for start in range(0, end, WINDOW):
        stop = min(start + WINDOW, end)
        rows = slice(*np.searchsorted(sample.positions, (start, stop)))
        yield start, stop, sample.targets[rows]


def llamacpp_available() -> bool:
    """Return whether llama-cpp-python is installed and its library loads."""
    try:
        llamacpp.build_info()
    except MissingDependencyError:
        return False
    return True
