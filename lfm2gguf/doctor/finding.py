"""What an examination says: findings, each with its remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found in a file or a checkpoint's folder, the worst first."""

    path: Path
    kind: str  # "gguf" or "checkpoint"
    findings: tuple[Finding, ...]

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
            "healthy": self.healthy,
            "errors": self.errors,
            "warnings": self.warnings,
            "notes": self.notes,
            "findings": [asdict(f) | {"severity": f.severity.value} for f in self.findings],
        }

    def _count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)
