"""What an examination says: findings, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from lfm2gguf.rendering import Table, notebook_table

MOST_ALIKE = 3  # findings of one kind that are told one by one though their figures differ


class Severity(Enum):
    """How bad it is; only an error makes the command fail."""

    ERROR = "error"  # does not load, or computes something else than the model
    WARNING = "warning"  # loads, and surprises whoever uses it
    NOTE = "note"  # good to know


@dataclass(frozen=True)
class Finding:
    """One thing that was found: ``where`` is a key, a tensor, a token or a file.

    ``remedy`` is empty where ``what`` says it already.
    """

    id: str
    severity: Severity
    where: str
    what: str
    remedy: str
    also: tuple[str, ...] = ()  # where else, each of them

    @property
    def places(self) -> str:
        """Where, as a person reads it."""
        return f"{self.where} and {len(self.also)} more" if self.also else self.where


def together(findings: Iterable[Finding]) -> list[Finding]:
    """Join findings that differ in nothing but their place; of many alike, the first speaks."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.id, finding.severity, finding.remedy), []).append(finding)
    joined = []
    for group in alike.values():
        same: dict[str, list[Finding]] = {}
        for finding in group:
            same.setdefault(finding.what, []).append(finding)
        for few in same.values() if len(same) <= MOST_ALIKE else [group]:
            first = few[0]
            what = first.what if few is not group or len(same) == 1 else f"{first.what}, and alike"
            joined.append(replace(first, what=what, also=tuple(f.where for f in few[1:])))
    return joined


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found in a file or a checkpoint's folder, the worst first.

    ``facts`` are no faults: what it needs to run, and what was not asked.
    """

    path: Path
    kind: str  # "gguf" or "checkpoint"
    purpose: str  # "model", "projector", "adapter", "imatrix", or "other": what runs no LFM2
    findings: tuple[Finding, ...]
    facts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return the counts, short."""
        counts = f"{self.errors} errors, {self.warnings} warnings, {self.notes} notes"
        return f"Diagnosis({str(self.path)!r}: {counts})"

    def _repr_html_(self) -> str:
        """Return the findings as a notebook shows them."""
        rows = [(f.severity.value, f.places, f.what, f.remedy) for f in self.findings]
        table = Table("", ("severity", "where", "what", "remedy"), rows, texts=4)
        return notebook_table(table, repr(self))

    @property
    def healthy(self) -> bool:
        """Whether there are no errors."""
        return self.errors == 0

    @property
    def errors(self) -> int:
        """How many errors there are."""
        return self._count(Severity.ERROR)

    @property
    def warnings(self) -> int:
        """How many warnings there are."""
        return self._count(Severity.WARNING)

    @property
    def notes(self) -> int:
        """How many notes there are."""
        return self._count(Severity.NOTE)

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as plain data."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "purpose": self.purpose,
            "healthy": self.healthy,
            "errors": self.errors,
            "warnings": self.warnings,
            "notes": self.notes,
            "facts": list(self.facts),
            "findings": [asdict(f) | {"severity": f.severity.value} for f in self.findings],
        }

    def _count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)
