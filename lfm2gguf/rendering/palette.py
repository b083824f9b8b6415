"""The colours of every page and picture, light and dark: one table, so that all are one family.

A page takes them as CSS variables (``var(--text)``), a picture that stands alone as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

COLORS = {  # by name: on light, on dark; text and curves have a contrast of 4.5 or more on back
    "back": ("#ffffff", "#14171a"),
    "card": ("#f6f7f9", "#1d2125"),
    "text": ("#1b1f24", "#e6e9ec"),
    "soft": ("#5b6570", "#9aa4ae"),
    "edge": ("#d9dee4", "#343a41"),
    "tint": ("#e8effa", "#1f2d42"),
    "good": ("#15803d", "#4ade80"),
    "bad": ("#b42318", "#ff8a80"),
    "c0": ("#2563b8", "#6ea8fe"),
    "c1": ("#c2410c", "#fb923c"),
    "c2": ("#15803d", "#4ade80"),
    "c3": ("#7e3fb5", "#c084fc"),
    "c4": ("#a16207", "#facc15"),
    "c5": ("#be185d", "#f472b6"),
    "c6": ("#0e7490", "#22d3ee"),
    "c7": ("#57606a", "#adb5bd"),
}
LIGHT = {name: light for name, (light, _) in COLORS.items()}
CURVES = sum(name[1:].isdigit() for name in COLORS)  # c0, c1, ...; the next ones are dashed


def tokens() -> str:
    """Return the colours as CSS variables.

    They follow the system's scheme, or ``data-theme="light"`` or ``"dark"`` at the root element.
    """
    return "\n".join(_tokens()) + "\n"


def _tokens() -> Iterator[str]:
    light = "".join(f"--{name}:{color};" for name, (color, _) in COLORS.items())
    dark = "".join(f"--{name}:{color};" for name, (_, color) in COLORS.items())
    yield f":root{{color-scheme:light dark;{light}}}"
    yield f"@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
    yield f":root[data-theme=light]{{color-scheme:light;{light}}}"
    yield f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"


def curve_class(i: int) -> str:
    """Return the classes of curve ``i`` on a page; after the last colour they begin again."""
    return f"c{i % CURVES}" + (" dashed" if i >= CURVES else "")


def curve_color(i: int) -> str:
    """Return the colour of curve ``i`` in a picture that stands alone, on white."""
    return LIGHT[f"c{i % CURVES}"]
