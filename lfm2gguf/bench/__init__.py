"""Speed over depth and workloads, as LFM2's published tables have them.

The way of a figure: :mod:`~lfm2gguf.bench.cells` says what is measured,
:mod:`~lfm2gguf.bench.sources.inprocess` or :mod:`~lfm2gguf.bench.sources.endpoint` measures it,
:mod:`~lfm2gguf.bench.metrics` defines the columns, :mod:`~lfm2gguf.bench.report.data` keeps them,
and :mod:`~lfm2gguf.bench.report.tables`, :mod:`~lfm2gguf.bench.report.comparison` and
:mod:`~lfm2gguf.bench.report.page` show them.
"""

from lfm2gguf.bench.cells import tokens
from lfm2gguf.bench.metrics import METRICS, Measurement, Sample
from lfm2gguf.bench.recipe import Settings, benchmark
from lfm2gguf.bench.report.data import Report, Row, Subject, published, read_reports
from lfm2gguf.bench.workloads import WORKLOAD_NAMES

__all__ = [
    "METRICS",
    "WORKLOAD_NAMES",
    "Measurement",
    "Report",
    "Row",
    "Sample",
    "Settings",
    "Subject",
    "benchmark",
    "published",
    "read_reports",
    "tokens",
]
