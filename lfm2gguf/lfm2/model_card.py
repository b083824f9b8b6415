"""What a folder's model card says in its front matter, within bounds.

YAML's aliases let a card of a kilobyte hold a hundred million items.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lfm2gguf.errors import CheckpointError

LONGEST = 4 << 20  # bytes of a README.md
MOST_ITEMS = 200_000  # of the front matter, each counted as often as it is written out


def read_model_card(folder: Path) -> dict[str, Any]:
    """Read the front matter of a folder's README.md; empty where there is none.

    Raises:
        CheckpointError: it cannot be read, is not YAML, or holds too much.

    """
    import gguf
    import yaml

    file = folder / "README.md"
    try:
        if file.is_file() and file.stat().st_size > LONGEST:
            raise CheckpointError(f"{file}: has more than {LONGEST >> 20} MiB; shorten it")
        card: dict[str, Any] = gguf.Metadata.load_model_card(folder) or {}
    # PyYAML's constructors raise ValueError for dates such as 2024-13-01
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, OSError) as error:
        problem = str(error).replace("\n", " ")
        raise CheckpointError(
            f"{file}: its front matter is not YAML ({problem:.300}); correct it"
        ) from error
    _check_size(file, card)
    return card


def _check_size(file: Path, card: dict[str, Any]) -> None:
    rest: list[Any] = [card]
    count = 0
    while rest:
        item = rest.pop()
        count += 1
        if isinstance(item, dict):
            rest += item.values()
        elif isinstance(item, list | tuple | set):
            rest += item
        if count + len(rest) > MOST_ITEMS:
            raise CheckpointError(
                f"{file}: its front matter holds more than {MOST_ITEMS} items (aliases, each "
                "time they are used, too); shorten it"
            )
