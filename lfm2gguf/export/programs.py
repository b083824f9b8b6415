"""A model for other programs: Ollama and LM Studio, with its own template, stops and sampling."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lfm2gguf.chat.dialect import LFM2
from lfm2gguf.errors import UnsupportedError
from lfm2gguf.export.ollama import go_template
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.members import member_of, trained_context
from lfm2gguf.options import Options
from lfm2gguf.runner import check_file, default_options
from lfm2gguf.storage import write_whole

STOPS = LFM2.ends
MOST_CONTEXT = 8_192  # tokens; what these programs reserve memory for at once


@dataclass(frozen=True)
class Export:
    """The file another program wants, and what it says.

    ``settings`` are the sampling and context in that program's own names.
    """

    program: str
    model: str
    text: str
    settings: dict[str, Any]
    stops: tuple[str, ...] = STOPS
    template: str | None = None  # None: the program reads the one in the GGUF

    def to_json(self) -> dict[str, Any]:
        """Return the export as plain data."""
        return asdict(self)

    def write(self, target: Path, *, overwrite: bool = False) -> None:
        """Write ``text`` to a file, which appears whole or not at all.

        Raises:
            OutputError: the target exists, cannot be written, or the disk is full.

        """
        data = self.text.encode("utf-8", "surrogateescape")  # the model's path, byte for byte
        write_whole(target, data, overwrite=overwrite)


def export_for(program: str, path: Path) -> Export:
    """Describe a GGUF file to one of :data:`PROGRAMS`.

    Raises:
        GGUFError: the file cannot be read.
        UnsupportedError: it is not a text model of LFM2's, or has no chat template of its kind.

    """
    file = check_file(path)
    return PROGRAMS[program](file, default_options(file))


def _ollama(file: GGUFFile, options: Options) -> Export:
    """Write an Ollama Modelfile.

    Ollama's own renderer for LFM2 is not named: it writes BOS, which Ollama adds to a GGUF's
    prompt anyway, and LFM2's markers of a list of tools for LFM2.5 too. Its parser is: it alone
    reads Pythonic calls (Ollama 0.14.3, ``model/parsers/lfm2.go``).
    """
    source = file.get("tokenizer.chat_template")
    if not isinstance(source, str):
        raise UnsupportedError(
            f"{file.path}: the file has no chat template; convert a checkpoint that has one"
        )
    path = str(file.path.resolve())
    if "\n" in path:
        raise UnsupportedError(
            f"{path!r}: a Modelfile has no form for such a path; rename the file"
        )
    template = go_template(source)
    settings = {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repeat_penalty": options.repeat_penalty,
        "repeat_last_n": options.repeat_window,
        "num_ctx": min(trained_context(file), MOST_CONTEXT),
    }
    lines = [f"FROM {path}", f'TEMPLATE """{template}"""']
    lines += [f"PARSER lfm2{'-thinking' * member_of(file).thinks}", "REQUIRES 0.14.3"]
    lines += [f"PARAMETER {name} {value}" for name, value in settings.items()]
    lines += [f'PARAMETER stop "{stop}"' for stop in STOPS]
    text = "\n".join(lines) + "\n"
    return Export("ollama", str(file.path), text, settings, template=template)


def _lmstudio(file: GGUFFile, options: Options) -> Export:
    """Write an LM Studio preset, for ``~/.lmstudio/config-presets``.

    The keys and what they hold: lmstudio-js, ``packages/lms-kv-config/src/schema.ts``. The
    template and the tokens that end an answer are in the GGUF, and LM Studio reads them there.
    """
    fields = {
        "temperature": options.temperature,
        "topKSampling": options.top_k,
        "topPSampling": {"checked": options.top_p < 1, "value": options.top_p},
        "minPSampling": {"checked": options.min_p > 0, "value": options.min_p},
        "repeatPenalty": {"checked": options.repeat_penalty != 1, "value": options.repeat_penalty},
        "stopStrings": list(STOPS),
    }
    settings = {f"llm.prediction.{key}": value for key, value in fields.items()}
    name = file.path.stem
    preset = {
        "identifier": f"@local:{name.lower()}",
        "name": name,
        "changed": False,
        "operation": {"fields": [{"key": k, "value": v} for k, v in settings.items()]},
        "load": {"fields": []},
    }
    return Export("lmstudio", str(file.path), json.dumps(preset, indent=2) + "\n", settings)


PROGRAMS: dict[str, Callable[[GGUFFile, Options], Export]] = {
    "ollama": _ollama,
    "lmstudio": _lmstudio,
}
