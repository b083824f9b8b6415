"""Values as JSON knows them: NaN and infinity, which it does not know, become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

# What JSON leaves as it is, and terminals obey: DEL and the second set of control characters.
CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def plain(value: Any, digits: int | None = None) -> Any:
    """Return a value with null for NaN and infinity, floats cut to so many significant digits."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: plain(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, digits) for item in value]
    return value


def file_size(nbytes: int) -> str:
    """Return bytes as a person reads them, in powers of 1000 like the Hub's pages."""
    value, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def dumps(value: Any, indent: int) -> str:
    """Return the JSON text of a value, with a newline at its end."""
    text = json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)
    return text.translate(CONTROLS) + "\n"
