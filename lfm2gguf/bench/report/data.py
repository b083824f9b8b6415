"""A benchmark as plain data: what its JSON holds, and reading it back.

The published tables ship in the same form (``published/*.json``), so that comparing with them
is comparing two reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from lfm2gguf import rendering
from lfm2gguf.bench.metrics import METRICS, Sample
from lfm2gguf.errors import OptionError
from lfm2gguf.json_text import parse_json

REPORT_VERSION = 1
PUBLISHED = "published"


@dataclass(frozen=True)
class Row:
    """The figures of one cell; ``metrics`` by the ids of :data:`METRICS`, in SI units.

    ``memory_growth`` is in bytes, over the measured runs; ``roofline`` is the decode speed in
    tokens/s that the measured memory bandwidth allows at this depth, and ``share`` what part of
    it was reached. None: unknown or not applicable.
    """

    suite: str
    name: str
    concurrency: int
    metrics: Mapping[str, Sample]
    runs: int | None = None
    memory_growth: int | None = None
    cached_tokens: int | None = None
    counted: str | None = None
    roofline: float | None = None
    share: float | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes two rows comparable."""
        return self.suite, self.name, self.concurrency

    @property
    def label(self) -> str:
        """The name, and how many requests at once."""
        return self.name + (f" x{self.concurrency}" if self.concurrency > 1 else "")


@dataclass(frozen=True)
class Subject:
    """One model on one machine: its rows, and all that is needed to read them.

    ``left_out`` maps what was not measured to the reason.
    """

    name: str
    via: str
    machine: str
    rows: tuple[Row, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    file: Mapping[str, Any] | None = None
    device: Mapping[str, Any] | None = None
    probes: Mapping[str, Any] | None = None
    source: str | None = None  # of published figures

    @property
    def label(self) -> str:
        """Model and machine."""
        return f"{self.name}, {self.machine}"


@dataclass(frozen=True)
class Report:
    """A run of ``lfm2gguf bench``. ``cut`` says what an interruption left unmeasured."""

    subjects: tuple[Subject, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    cut: str | None = None

    def __repr__(self) -> str:
        """Return what was measured, short."""
        subjects = (f"{s.label}: {len(s.rows)} rows" for s in self.subjects)
        return f"Report({'; '.join(subjects)}{', incomplete' if self.cut else ''})"

    def _repr_html_(self) -> str:
        """Return the medians as a notebook shows them."""
        rows = [
            (subject.label, row.label, name, f"{sample.median:.4g}")
            for subject in self.subjects
            for row in subject.rows
            for name, sample in row.metrics.items()
        ]
        table = rendering.Table("", ("model", "row", "metric", "median"), rows, texts=3)
        return rendering.notebook_table(table)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data; NaN and infinity become null."""
        data = {"report": "lfm2gguf bench", "version": REPORT_VERSION, **asdict(self)}
        for subject in data["subjects"]:
            for row in subject["rows"]:
                row["metrics"] = {k: _sample_json(v) for k, v in row["metrics"].items()}
        cleaned: dict[str, Any] = rendering.plain(data, digits=6)
        return cleaned

    def dumps(self) -> str:
        """Return the JSON text."""
        return rendering.dumps(self.to_json(), indent=1)


def _sample_json(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sample.items() if value not in (None, (), [])}


def read_reports(names: Sequence[str | Path]) -> list[Report]:
    """Read reports by their paths; ``published`` means all published ones.

    Raises:
        OptionError: a file cannot be read, is not a report, or is one of another version.

    """
    found: list[Report] = []
    for name in names:
        if str(name) == PUBLISHED and not Path(name).exists():
            found += published()
        else:
            found.append(_read(Path(name)))
    return found


def published() -> list[Report]:
    """Return the published tables, each a report that names its source."""
    folder = files("lfm2gguf.bench") / "published"
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    texts = [(e.name, e.read_text("utf-8")) for e in entries if e.name.endswith(".json")]
    return [_parse(text, name) for name, text in texts]


def _read(path: Path) -> Report:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise OptionError(
            f"{path}: cannot be read ({error.strerror}); give a report of lfm2gguf bench "
            "--json-file"
        ) from error
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{path}: not a report; write one by lfm2gguf bench --json-file"
        ) from error
    return _parse(text, str(path))


def _parse(text: str, name: str) -> Report:
    try:
        data = parse_json(text)
        if data["report"] != "lfm2gguf bench":
            raise ValueError
        version = data["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{name}: not a report; write one by lfm2gguf bench --json-file"
        ) from error
    if version != REPORT_VERSION:
        raise OptionError(
            f"{name}: a report of version {version}, where {REPORT_VERSION} is known; measure again"
        )
    try:
        known = {key: data[key] for key in ("settings", "environment", "created", "cut")}
        return Report(tuple(_subject(s) for s in data["subjects"]), **known)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(f"{name}: the report is damaged ({error!r}); measure again") from error


def _subject(data: dict[str, Any]) -> Subject:
    rows = tuple(_row(row) for row in data["rows"])
    return Subject(**{**data, "rows": rows, "notes": tuple(data["notes"])})


def _row(data: dict[str, Any]) -> Row:
    metrics = {
        id: Sample(**{**sample, "values": tuple(map(float, sample.get("values", ())))})
        for id, sample in data["metrics"].items()
        if id in METRICS
    }
    if not all(isinstance(sample.median, (int, float)) for sample in metrics.values()):
        raise ValueError("a median is not a number")
    return Row(**{**data, "metrics": metrics})
