"""The result of a verification: what was measured on one file, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import OptionError
from lfm2gguf.rendering import Table, notebook_table
from lfm2gguf.verification.measure.deltas import TensorDelta
from lfm2gguf.verification.measure.engine import QUANTIZATION, RUNTIME, SHIPPED
from lfm2gguf.verification.measure.figures import Figures
from lfm2gguf.verification.measure.measurement import Stages
from lfm2gguf.verification.measure.scores import Scores
from lfm2gguf.verification.measure.similarity import Similarity
from lfm2gguf.verification.measure.tensors import TensorDifference
from lfm2gguf.verification.verdict.gates import Gate


@dataclass(frozen=True)
class Verification:
    """What was measured on one file, and the verdict.

    ``figures`` (of a retrieval model ``similarity``) compares the file as it is shipped with
    the reference; a three-way verification adds the stages ``quantization`` and ``runtime``.
    """

    candidate: str
    type: str
    size: int  # bytes
    weights: int  # of all tensors
    reference: str
    reference_digest: str
    tokenizer: str
    texts: tuple[Mapping[str, Any], ...]
    ctx: int
    engine: str
    device: str
    stages: Stages
    tensors: tuple[TensorDifference, ...]
    deltas: tuple[TensorDelta, ...]  # what each tensor carries of an adapter
    gates: tuple[Gate, ...]
    reference_cached: bool
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    scores: Scores | None = field(repr=False, compare=False)  # None of a retrieval model
    positions: npt.NDArray[np.intp] = field(repr=False, compare=False)

    def __repr__(self) -> str:
        """Return the verdict, short."""
        verdict = "passed" if self.passed else "FAILED"
        gates = ", ".join(f"{gate.title} {gate.value:.3g}" for gate in self.gates if gate.limit)
        return f"Verification({self.candidate!r} {verdict} against {self.reference!r}: {gates})"

    def _repr_html_(self) -> str:
        """Return the gates as a notebook shows them."""
        rows = [
            (gate.title, f"{gate.value:.6g}", f"{gate.relation} {gate.limit:.6g}",
             "passed" if gate.passed else "FAILED")
            for gate in self.gates
        ]  # fmt: skip
        table = Table("", ("gate", "value", "limit", "verdict"), rows)
        return notebook_table(table, repr(self))

    @property
    def bits_per_weight(self) -> float:
        """The file's size over its weights, metadata included."""
        return 8 * self.size / self.weights if self.weights else 0.0

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def shipped(self) -> Figures | Similarity:
        """The figures of the file as it is shipped, of either kind of model."""
        return self.stages[SHIPPED]

    @property
    def figures(self) -> Figures:
        """The figures of the file as it is shipped.

        Raises:
            OptionError: it is a retrieval model's.

        """
        found = self.shipped
        if not isinstance(found, Figures):
            raise OptionError(f"{self.reference}: is a retrieval model; read .similarity instead")
        return found

    @property
    def similarity(self) -> Similarity:
        """A retrieval model's figures, as shipped.

        Raises:
            OptionError: it is a text model's.

        """
        found = self.shipped
        if not isinstance(found, Similarity):
            raise OptionError(f"{self.reference}: is a text model; read .figures instead")
        return found

    @property
    def failures(self) -> tuple[Gate, ...]:
        """The gates that did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def culprit(self) -> str:
        """In a three-way verification, which of the two failed; else empty."""
        failed = {gate.stage for gate in self.failures}
        return " and ".join(stage for stage in (QUANTIZATION, RUNTIME) if stage in failed)
