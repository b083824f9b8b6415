"""What the package says that depends on where its repository is: README's links, project URLs.

A metadata hook of Hatchling (https://hatch.pypa.io/latest/plugins/metadata-hook/custom/). The
repository's address is written nowhere: a build in a workflow is told it (``GITHUB_REPOSITORY``).
Elsewhere README's links to files of the repository become plain text and its pictures are left out,
and the project has only those URLs that hold without it.
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


def urls(address: str | None) -> dict[str, str]:
    """Return the project's URLs, by the labels that PyPI knows."""
    if not address:
        return {"Documentation": "https://pypi.org/project/lfm2gguf/"}
    return {
        "Homepage": address,
        "Documentation": f"{address}#readme",
        "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/HEAD/.github/CHANGELOG.md",
    }


class PackageHook(MetadataHookInterface):
    """Gives the package its description and its URLs."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme`` and ``urls``."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = os.environ.get("GITHUB_REPOSITORY")
        address = f"https://github.com/{repository}" if repository else None
        metadata["readme"] = {"content-type": "text/markdown", "text": detached(text, address)}
        metadata["urls"] = urls(address) | self.config["urls"]
