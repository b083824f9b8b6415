"""How a GGUF file is written down in llama_cpp.json."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SHOWN = 16  # items of an array; longer ones are told by their digest


def digest(data: Any) -> str:
    """Of bytes, or of an array's buffer."""
    return hashlib.sha256(data).hexdigest()[:32]


def value(types: list[str], content: Any) -> list[Any]:
    """A metadata value with its type: itself, or its length and digest where it is long."""
    if isinstance(content, list) and len(content) > SHOWN:
        content = {"items": len(content), "sha256": digest(json.dumps(content).encode())}
    return [" of ".join(types), content]
