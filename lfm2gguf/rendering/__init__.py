"""How reports look and where they go: tables, pictures, JSON values and their files.

Nothing here knows what was measured, and nothing writes to standard output.
"""

from lfm2gguf.rendering.tables import Table, csv_text, escaped, markdown_table
from lfm2gguf.rendering.targets import STANDARD_OUTPUT, Targets, check_targets, write_targets
from lfm2gguf.rendering.values import dumps, plain

__all__ = [
    "STANDARD_OUTPUT",
    "Table",
    "Targets",
    "check_targets",
    "csv_text",
    "dumps",
    "escaped",
    "markdown_table",
    "plain",
    "write_targets",
]
