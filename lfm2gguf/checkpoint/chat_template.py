"""The chat template of a folder: which counts where there are several.

Where tokenizer_config.json has one and there is a chat_template.jinja too, llama.cpp's converter
takes the former (``SpecialVocab`` of its gguf package), as is done here, and transformers the
latter (``PreTrainedTokenizerBase.from_pretrained``). The converter, the doctor and the verifier
all ask here; a runner has only the one that was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfm2gguf.checkpoint.folder import read_json
from lfm2gguf.checkpoint.pointers import refuse_pointer
from lfm2gguf.errors import CheckpointError

CONFIG, FILE, OLD_FILE = "tokenizer_config.json", "chat_template.jinja", "chat_template.json"
MORE = "additional_chat_templates"  # a folder of others, by their names
Templates = str | Sequence[Mapping[str, str]] | None  # one, or several with their names


def chat_templates(folder: Path) -> Templates:
    """Return the templates that a GGUF of this folder has.

    They are those of ``SpecialVocab``, which looks nowhere without a tokenizer_config.json. It
    drops templates that are given as an object (name: template), and those of other files where
    tokenizer_config.json has a null; neither is dropped here.

    Raises:
        CheckpointError: a template is neither a text nor texts with their names, or a file
            cannot be read.

    """
    if not (folder / CONFIG).is_file():
        return None
    given = _given(folder / CONFIG)
    if given is not None:
        return given
    file = _read(folder / FILE)
    if file is None:
        return _given(folder / OLD_FILE)
    more = sorted((folder / MORE).glob("*.jinja"))
    if not more:
        return file
    named = [{"name": path.stem, "template": _read(path) or ""} for path in more]
    return [{"name": "default", "template": file}, *named]


def default_chat_template(folder: Path) -> str | None:
    """Return the template of plain conversations; None where the folder has none.

    Raises:
        CheckpointError: as :func:`chat_templates`.

    """
    templates = chat_templates(folder)
    if templates is None or isinstance(templates, str):
        return templates
    return next((t["template"] for t in templates if t["name"] == "default"), None)


def chat_template_notes(folder: Path) -> list[str]:
    """Return what a user may not expect: that there are two templates, and they differ.

    Raises:
        CheckpointError: as :func:`chat_templates`.

    """
    given, file = default_chat_template(folder), _read(folder / FILE)
    if given is None or file is None or given.removesuffix("\n") == file.removesuffix("\n"):
        return []
    return [
        f"the chat template is that of {CONFIG}, which llama.cpp's converter takes; {FILE}, which "
        "transformers takes, is another: delete the one that is out of date"
    ]


def _given(path: Path) -> Templates:
    given: Any = read_json(path).get("chat_template")
    if isinstance(given, dict):
        given = [{"name": name, "template": text} for name, text in given.items()]
    parts = given if isinstance(given, list) else []
    sound = all(
        isinstance(part, dict) and all(isinstance(part.get(k), str) for k in ("name", "template"))
        for part in parts
    )
    if not sound or not isinstance(given, str | list | None):
        raise CheckpointError(
            f"{path}: its chat_template is neither a text nor texts with their names; copy it from "
            "the model that this one was made from"
        )
    templates: Templates = given
    return templates


def _read(path: Path) -> str | None:
    refuse_pointer(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path}: cannot be read ({why}); save it again as UTF-8") from error
