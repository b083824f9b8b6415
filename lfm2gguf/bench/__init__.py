"""Speed over depth and workloads, as LFM2's published tables have them.

The way of a figure: :mod:`~lfm2gguf.bench.cells` says what is measured,
:mod:`~lfm2gguf.bench.inprocess` or :mod:`~lfm2gguf.bench.endpoint` measures it,
:mod:`~lfm2gguf.bench.measurement` defines the columns, :mod:`~lfm2gguf.bench.report` keeps them,
and :mod:`~lfm2gguf.bench.tables`, :mod:`~lfm2gguf.bench.comparison` and
:mod:`~lfm2gguf.bench.page` show them.
"""

from lfm2gguf.bench.measurement import METRICS, Measurement, Sample
from lfm2gguf.bench.measuring import Settings, benchmark
from lfm2gguf.bench.report import Report, Row, Subject, published, read_reports
from lfm2gguf.bench.suite import Progress

__all__ = [
    "METRICS",
    "Measurement",
    "Progress",
    "Report",
    "Row",
    "Sample",
    "Settings",
    "Subject",
    "benchmark",
    "published",
    "read_reports",
]
