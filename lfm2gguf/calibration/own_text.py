"""Text that the checkpoint writes itself, which joins what it is calibrated on.

Moments of one domain alone do harm in others. A model's own words are of all that it knows, and
need no file (Williams et al., arXiv 2410.17170, calibrate on nothing else). They are drawn at
several temperatures: at 1 they are like its training text, at 3 they reach what is seldom said.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lfm2gguf.blas import one_thread
from lfm2gguf.calibration.material import OWN_TOKENS, CalibrationMaterial
from lfm2gguf.calibration.products import FLOAT32, Products
from lfm2gguf.calibration.store import Store
from lfm2gguf.crew import ALONE, Crew, pieces
from lfm2gguf.progress import ProgressCallback, counting
from lfm2gguf.reference import Array, Decoder, Ids
from lfm2gguf.verification import ReferenceModel

NAME = "own-text"  # in the store
TEMPERATURES = (1.0, 1.5, 2.0, 3.0)  # of one text after the other
TOGETHER = 512  # texts that are written side by side: keys and values of all are held
DRAWN = 16  # of them whose next tokens are drawn by one thread


def with_own_text(
    model: ReferenceModel,
    material: CalibrationMaterial,
    progress: ProgressCallback | None = None,
    *,
    threads: int | None = None,
    store: Store | None = None,
    products: Products = FLOAT32,
) -> CalibrationMaterial:
    """Let the checkpoint write the ``own`` sequences of ``material``, and return all.

    They are the same for the same checkpoint, products, BLAS and processor, however many threads
    there are.
    A ``store`` that has them from an earlier run gives them again.
    """
    if not material.own:
        return material
    kept = store.load(NAME) if store else None
    if kept is None:
        written = _written(model, material.own, progress, threads, products)
        if store:
            store.save(NAME, None, written.view(np.uint8))
    else:
        written = kept.view(np.int32).reshape(material.own, OWN_TOKENS)
    return replace(material, sequences=(*material.sequences, *written), own=0)


def _written(
    model: ReferenceModel,
    texts: int,
    progress: ProgressCallback | None,
    threads: int | None,
    products: Products,
) -> Ids:
    """Return tokens (texts, OWN_TOKENS)."""
    steps = OWN_TOKENS - 1
    parts = pieces(texts, TOGETHER)
    count = counting(progress, "writing its own text", "steps")
    random = np.random.default_rng(0)
    draws = random.random((steps, texts))
    temperatures = np.resize(TEMPERATURES, texts)
    ids = np.empty((texts, OWN_TOKENS), np.int32)
    ids[:, 0] = random.integers(0, model.weights.vocabulary, texts)
    if model.bos is not None:
        ids[:, 0] = model.bos
    with Crew(threads) as crew, one_thread():
        for done, part in enumerate(parts):
            sizes = part.stop - part.start, OWN_TOKENS
            decoder = Decoder(model.weights, *sizes, crew, products.multiplier)
            for step in range(steps):
                logits = decoder.logits(decoder.step(ids[part, step]))
                ids[part, step + 1] = _drawn(logits, temperatures[part], draws[step, part], crew)
                if count:
                    count(done * steps + step + 1, steps * len(parts))
    return ids


def _drawn(
    logits: Array,
    temperatures: npt.NDArray[np.float64],
    draws: npt.NDArray[np.float64],
    crew: Crew = ALONE,
) -> Ids:
    """Choose a token in each row (n, V), as numbers in [0, 1) say."""
    ids = np.empty(len(logits), np.int32)

    def draw(part: slice) -> None:
        for i in range(part.start, part.stop):
            row = logits[i]
            shares = np.exp((row - row.max()) / np.float32(temperatures[i]))
            chances = shares.cumsum(dtype=np.float64)
            found = np.searchsorted(chances, draws[i] * chances[-1], "right")
            ids[i] = min(found, len(row) - 1)

    crew.all(draw, pieces(len(ids), DRAWN))
    return ids
