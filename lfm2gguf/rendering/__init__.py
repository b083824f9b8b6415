"""How reports look and where they go: tables, pictures, pages, JSON values, files.

Nothing here knows what was measured, and nothing writes to standard output.
"""

from lfm2gguf.rendering.pages import (
    MARK,
    document,
    figures,
    folded,
    html_figure,
    html_table,
    keys,
    notebook_table,
)
from lfm2gguf.rendering.palette import curve_color, tokens
from lfm2gguf.rendering.panels import Line, Panel, draw_panel, draw_panels
from lfm2gguf.rendering.plots import Curve, Dots, draw_curves, draw_dots
from lfm2gguf.rendering.progress_bar import PlainLines, TerminalBar, progress_bar
from lfm2gguf.rendering.tables import Table, csv_text, escaped, markdown_table
from lfm2gguf.rendering.targets import STANDARD_OUTPUT, Targets, check_targets, write_targets
from lfm2gguf.rendering.values import dumps, file_size, plain

__all__ = [
    "MARK",
    "STANDARD_OUTPUT",
    "Curve",
    "Dots",
    "Line",
    "Panel",
    "PlainLines",
    "Table",
    "Targets",
    "TerminalBar",
    "check_targets",
    "csv_text",
    "curve_color",
    "document",
    "draw_curves",
    "draw_dots",
    "draw_panel",
    "draw_panels",
    "dumps",
    "escaped",
    "figures",
    "file_size",
    "folded",
    "html_figure",
    "html_table",
    "keys",
    "markdown_table",
    "notebook_table",
    "plain",
    "progress_bar",
    "tokens",
    "write_targets",
]
