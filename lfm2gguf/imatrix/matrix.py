"""An importance matrix as a value: sums of squares of what each linear layer sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.numeric import numbers_checked
from lfm2gguf.several import several

Floats: TypeAlias = npt.NDArray[np.float32]
Counts: TypeAlias = npt.NDArray[np.int64]

DEFAULT_CHUNK = 512  # tokens of a chunk, where a legacy file does not say (llama-imatrix's -c)


@dataclass(frozen=True)
class Entry:
    """What one weight's inputs were: ``sums`` of their squares over ``counts`` tokens.

    ``sums`` is float32 (matrices, columns), ``counts`` int64 (matrices,): one matrix, or one for
    each expert. A legacy file has a single count for all experts: then ``sums`` is (1, experts x
    columns).
    """

    sums: Floats
    counts: Counts

    @property
    def values(self) -> Floats:
        """The mean squares as llama-quantize uses them, float32, flat; ones without tokens.

        Source: tools/quantize/quantize.cpp, ``load_imatrix`` (llama.cpp 0c1e57098).
        """
        counts = self.counts.astype(np.float32)[:, None]
        seen = counts > 0
        means = np.divide(self.sums, counts, out=np.ones_like(self.sums), where=seen)
        return means.reshape(-1)

    def __add__(self, other: Entry) -> Entry:
        """Return the entry of both texts together."""
        return Entry(self.sums + other.sums, self.counts + other.counts)


@dataclass(frozen=True)
class ImportanceMatrix:
    """Entries by the name of a weight in a GGUF, and what they were computed on.

    ``chunk_size`` is in tokens, and 0 in a legacy file, whose sums are means times
    ``chunk_count``.
    """

    entries: Mapping[str, Entry] = field(repr=False)
    datasets: tuple[str, ...] = ()
    chunk_count: int = 0
    chunk_size: int = 0
    source: Path | None = None  # the file it was read from

    def __post_init__(self) -> None:
        for name, entry in self.entries.items():
            if not np.isfinite(entry.sums).all() or (entry.sums < 0).any():
                raise GGUFError(
                    f"{self.source or 'importance matrix'}: the entry {name} holds negative "
                    "values, NaN or infinity; compute the matrix again"
                )

    def select(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> ImportanceMatrix:
        """Keep the entries whose names contain one of ``include`` and none of ``exclude``.

        An empty ``include`` keeps all.
        Source: tools/quantize/quantize.cpp, ``prepare_imatrix`` (llama.cpp 0c1e57098).

        Raises:
            OptionError: one of them is in no name.

        """
        include, exclude = several(include), several(exclude)
        for option, parts in (("include", include), ("exclude", exclude)):
            for part in parts:
                if not any(part in name for name in self.entries):
                    raise OptionError(
                        f"{option} (--{option}-weights) {part!r}: is in no name of the importance "
                        "matrix; lfm2gguf inspect shows them"
                    )
        kept = {
            name: entry
            for name, entry in self.entries.items()
            if (not include or any(part in name for part in include))
            and not any(part in name for part in exclude)
        }
        return replace(self, entries=kept)

    @property
    def unseen(self) -> dict[str, list[int]]:
        """The experts that no token chose, by entry: they are quantized as without a matrix."""
        found = {
            name: [int(i) for i in np.flatnonzero(entry.counts == 0)]
            for name, entry in self.entries.items()
        }
        return {name: experts for name, experts in found.items() if experts}


@numbers_checked
def merge(
    matrices: Iterable[ImportanceMatrix], chunk_size: int = DEFAULT_CHUNK
) -> ImportanceMatrix:
    """Add matrices of one model on several texts, as ``llama-imatrix --in-file`` does.

    A legacy file counts chunks, not tokens: ``chunk_size`` says how long they were.
    Source: tools/imatrix/imatrix.cpp, ``load_imatrix`` (llama.cpp 0c1e57098).

    Raises:
        OptionError: the entries of a weight differ in size, or there is no matrix.

    """
    parts = [_in_tokens(matrix, chunk_size) for matrix in matrices]
    if not parts:
        raise OptionError("no importance matrix to merge; name at least one file")
    entries: dict[str, Entry] = {}
    for part in parts:
        for name, entry in part.entries.items():
            entries[name] = _sum(part, name, entries[name], entry) if name in entries else entry
    most = max((int(entry.counts.max()) for entry in entries.values()), default=0)
    sizes = [part.chunk_size for part in parts if part.chunk_size]
    size = sizes[0] if sizes else chunk_size
    datasets = tuple(name for part in parts for name in part.datasets)
    return ImportanceMatrix(entries, datasets, most // size, size)


def _in_tokens(matrix: ImportanceMatrix, chunk_size: int) -> ImportanceMatrix:
    if matrix.chunk_size:
        return matrix
    factor = np.float32(chunk_size)
    entries = {
        name: Entry(entry.sums * factor, entry.counts * chunk_size)
        for name, entry in matrix.entries.items()
    }
    return replace(matrix, entries=entries)


def _sum(part: ImportanceMatrix, name: str, first: Entry, second: Entry) -> Entry:
    if first.sums.size != second.sums.size:
        raise OptionError(
            f"{part.source or 'importance matrix'}: {name} has {second.sums.size} values, and "
            f"{first.sums.size} in the files before: they are of different models"
        )
    count = max(len(first.counts), len(second.counts))
    return _spread(first, count) + _spread(second, count)


def _spread(entry: Entry, count: int) -> Entry:
    """Repeat a legacy file's single count for every expert."""
    if len(entry.counts) == count:
        return entry
    return Entry(entry.sums.reshape(count, -1), np.repeat(entry.counts, count))
