"""How reports look and where they go: tables, pictures, JSON values and their files.

Nothing here knows what was measured, and nothing writes to standard output.
"""

from lfm2gguf.rendering.panels import Line, Panel, draw_panels, line_color
from lfm2gguf.rendering.plots import PAGE_COLORS, Curve, Dots, draw_curves, draw_dots
from lfm2gguf.rendering.tables import Table, csv_text, escaped, markdown_table
from lfm2gguf.rendering.targets import STANDARD_OUTPUT, Targets, check_targets, write_targets
from lfm2gguf.rendering.values import dumps, plain

__all__ = [
    "PAGE_COLORS",
    "STANDARD_OUTPUT",
    "Curve",
    "Dots",
    "Line",
    "Panel",
    "Table",
    "Targets",
    "check_targets",
    "csv_text",
    "draw_curves",
    "draw_dots",
    "draw_panels",
    "dumps",
    "escaped",
    "line_color",
    "markdown_table",
    "plain",
    "write_targets",
]
