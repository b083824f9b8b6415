"""The chat template of a folder that has several.

Where tokenizer_config.json has one and there is a chat_template.jinja too, llama.cpp's converter
takes the former (``SpecialVocab`` of its gguf package), as is done here, and transformers the
latter (``PreTrainedTokenizerBase.from_pretrained``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfm2gguf.checkpoint.folder import read_json
from lfm2gguf.errors import CheckpointError

CONFIG, FILE = "tokenizer_config.json", "chat_template.jinja"
Templates = str | Sequence[Mapping[str, str]] | None  # one, or several with their names


def chosen(folder: Path, found: Templates) -> Templates:
    """Return the template that is written, given the one that ``SpecialVocab`` found.

    It drops templates that are given as an object (name: template), and chat_template.jinja where
    tokenizer_config.json has a null.

    Raises:
        CheckpointError: tokenizer_config.json has something else.

    """
    given = read_json(folder / CONFIG).get("chat_template")
    if isinstance(given, dict):
        given = [{"name": name, "template": text} for name, text in given.items()]
    _check(folder / CONFIG, given)
    if given is None and found is None and (folder / CONFIG).is_file():
        return _file(folder)
    return found if given is None else given


def notes(folder: Path) -> list[str]:
    """Return what a user may not expect: that there are two templates, and they differ."""
    given, file = chosen(folder, None), _file(folder)
    if given is None or file is None or _default(given) == file.removesuffix("\n"):
        return []
    return [
        f"the chat template of {CONFIG} is written, as by llama.cpp's converter; {FILE}, which "
        "transformers takes, is another: delete the one that is out of date"
    ]


def _file(folder: Path) -> str | None:
    try:
        return (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / FILE}: cannot be read ({error}); save it in UTF-8"
        ) from error


def _default(templates: str | Sequence[Mapping[str, str]]) -> str:
    if not isinstance(templates, str):
        templates = next((t["template"] for t in templates if t["name"] == "default"), "")
    return templates.removesuffix("\n")


def _check(path: Path, templates: Any) -> None:
    parts = templates if isinstance(templates, list) else []
    sound = all(
        isinstance(part, dict) and all(isinstance(part.get(k), str) for k in ("name", "template"))
        for part in parts
    )
    if not sound or not isinstance(templates, str | list | None):
        raise CheckpointError(
            f"{path}: its chat_template is neither a text nor texts with their names; copy it from "
            "the model that this one was made from"
        )
