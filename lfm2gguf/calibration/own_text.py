"""Text that the checkpoint writes itself, which joins what it is calibrated on.

Moments of one domain alone do harm in others. A model's own words are of all that it knows, and
need no file (Williams et al., arXiv 2410.17170, calibrate on nothing else). They are drawn at
several temperatures: at 1 they are like its training text, at 3 they reach what is seldom said.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from threading import Event, Lock

import numpy as np
import numpy.typing as npt

from lfm2gguf.calibration.blas import one_thread
from lfm2gguf.calibration.crew import Crew, pieces
from lfm2gguf.calibration.material import OWN_TOKENS, CalibrationMaterial
from lfm2gguf.calibration.store import Store
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import Array, Decoder, Ids
from lfm2gguf.verification import ReferenceModel

NAME = "own-text"  # in the store
TEMPERATURES = (1.0, 1.5, 2.0, 3.0)  # of one text after the other
TOGETHER = 128  # texts that a thread writes side by side: keys and values of all are held


def with_own_text(
    model: ReferenceModel,
    material: CalibrationMaterial,
    progress: ProgressCallback | None = None,
    *,
    threads: int | None = None,
    store: Store | None = None,
) -> CalibrationMaterial:
    """Let the checkpoint write the ``own`` sequences of ``material``, and return all.

    They are the same for the same checkpoint, BLAS and processor, however many threads there are.
    A ``store`` that has them from an earlier run gives them again.
    """
    if not material.own:
        return material
    kept = store.load(NAME) if store else None
    if kept is None:
        written = _written(model, material.own, progress, threads)
        if store:
            store.save(NAME, None, written.view(np.uint8))
    else:
        written = kept.view(np.int32).reshape(material.own, OWN_TOKENS)
    return replace(material, sequences=(*material.sequences, *written), own=0)


def _written(
    model: ReferenceModel, texts: int, progress: ProgressCallback | None, threads: int | None
) -> Ids:
    """Return tokens (texts, OWN_TOKENS)."""
    steps = OWN_TOKENS - 1
    parts, stopped, reporting = pieces(texts, TOGETHER), Event(), Lock()
    count, told = counting(progress, "writing its own text", "steps"), itertools.count(1)
    random = np.random.default_rng(0)
    draws = random.random((steps, texts))
    starts = random.integers(0, model.weights.vocabulary, texts)
    if model.bos is not None:
        starts[:] = model.bos

    def write(part: slice) -> Ids:
        ids = np.empty((part.stop - part.start, OWN_TOKENS), np.int32)
        ids[:, 0] = starts[part]
        decoder = Decoder(model.weights, *ids.shape)
        temperatures = np.resize(TEMPERATURES, texts)[part]
        for step in range(steps):
            if stopped.is_set():
                break
            logits = decoder.logits(decoder.step(ids[:, step]))
            ids[:, step + 1] = _drawn(logits, temperatures, draws[step, part])
            if count:
                with reporting:
                    count(next(told), steps * len(parts))
        return ids

    with Crew(threads) as crew, one_thread():
        try:
            return np.concatenate(list(crew.each(write, parts)))
        finally:
            stopped.set()  # an interrupt must not wait for whole texts


def _drawn(
    logits: Array, temperatures: npt.NDArray[np.float64], draws: npt.NDArray[np.float64]
) -> Ids:
    """Choose a token in each row (n, V), as numbers in [0, 1) say."""
    ids = np.empty(len(logits), np.int32)
    for i, row in enumerate(logits):
        chances = np.exp((row - row.max()) / np.float32(temperatures[i])).cumsum(dtype=np.float64)
        ids[i] = min(np.searchsorted(chances, draws[i] * chances[-1], "right"), len(row) - 1)
    return ids
