"""README as the package carries it: its links hold where no repository lies beside it.

A metadata hook of Hatchling (https://hatch.pypa.io/latest/plugins/metadata-hook/custom/). Links to
files of the repository lead to its address where the build knows it (``GITHUB_REPOSITORY``, which
workflows have), and become plain text where it does not; so do pictures.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#|mailto:)(?P<to>[^)\s]+)\)")


def detached(text: str, address: str | None) -> str:
    """Return a text whose links and pictures lead to the repository, or are left out."""

    def link(match: re.Match[str]) -> str:
        if not address:
            return "" if match["picture"] else match["text"]
        way = "raw" if match["picture"] else "blob"
        return f"{match['picture']}[{match['text']}]({address}/{way}/HEAD/{match['to']})"

    return LINK.sub(link, text)


class ReadmeHook(MetadataHookInterface):
    """Gives the package its description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme``."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = os.environ.get("GITHUB_REPOSITORY")
        address = f"https://github.com/{repository}" if repository else None
        metadata["readme"] = {"content-type": "text/markdown", "text": detached(text, address)}
