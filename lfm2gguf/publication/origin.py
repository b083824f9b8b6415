"""What a checkpoint's own page says of it, and so what the page of its GGUF files repeats."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfm2gguf.checkpoint import Checkpoint, fetch, snapshot_of
from lfm2gguf.errors import HubError
from lfm2gguf.lfm2 import has_projector, read_model_card
from lfm2gguf.rendering import escaped

HUB = "https://huggingface.co"
LICENSE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: its repository and commit, where it has them, and its page.

    ``license_file`` is the licence's text, which goes along; ``card`` is the front matter of the
    checkpoint's README.md.
    """

    name: str
    path: Path
    repository: str | None
    commit: str | None
    card: Mapping[str, Any] = field(repr=False)
    license_file: Path | None
    hears_or_sees: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint, base_model: str | None = None) -> Origin:
        """Read what is known of a checkpoint; ``base_model`` is its repository, if it is told.

        Raises:
            CheckpointError: its README.md is damaged.

        """
        snapshot = snapshot_of(checkpoint.path)
        repository, commit = snapshot or (None, None)
        card = read_model_card(checkpoint.path)
        return cls(
            checkpoint.name,
            checkpoint.path,
            base_model or repository,
            commit,
            card,
            _license_file(checkpoint.path, snapshot, card),
            has_projector(checkpoint),
        )

    def front_matter(self, *, retrieval: bool) -> dict[str, Any]:
        """Return what the Hub reads: base model, licence, languages, task, library and tags.

        What the checkpoint's page does not say is left out, and not guessed.
        """
        tags = [tag for tag in _texts(self.card.get("tags")) if tag != "safetensors"]
        data: dict[str, Any] = {}
        if self.repository:
            data |= {"base_model": self.repository, "base_model_relation": "quantized"}
        return {
            **data,
            **self._license(),
            "language": _texts(self.card.get("language")) or None,
            "pipeline_tag": _text(self.card.get("pipeline_tag")) or self._task(retrieval),
            "library_name": "gguf",
            "tags": list(dict.fromkeys([*tags, "gguf", "llama.cpp", "lfm2gguf"])),
        }

    def _task(self, retrieval: bool) -> str:
        if retrieval:
            return "sentence-similarity"
        return "image-text-to-text" if self.hears_or_sees else "text-generation"

    def _license(self) -> dict[str, str]:
        found = {key: _text(self.card.get(key)) for key in ("license", "license_name")}
        link = _text(self.card.get("license_link"))
        if link and "://" not in link:  # a file of the checkpoint's repository
            kept = self.license_file and self.license_file.name == link
            there = f"{HUB}/{self.repository}/blob/main/{link}" if self.repository else ""
            link = link if kept else there
        return {key: text for key, text in {**found, "license_link": link}.items() if text}


def _license_file(
    folder: Path, snapshot: tuple[str, str] | None, card: Mapping[str, Any]
) -> Path | None:
    named = _text(card.get("license_link"))
    names = [named] if named and "/" not in named else []
    names += [name for name in LICENSE_FILES if name not in names]
    if snapshot:
        with contextlib.suppress(HubError):  # not to be had now: the link says where it is
            folder = fetch(*snapshot, names)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _text(value: object) -> str:
    return escaped(value) if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [escaped(text) for text in values if isinstance(text, str) and text]
