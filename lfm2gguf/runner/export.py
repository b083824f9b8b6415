"""A model for other programs: Ollama and LM Studio, with its own template, stops and sampling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lfm2gguf.runner.options import Options, default_options
from lfm2gguf.runner.placement import check_file, trained_context

# Ollama renders Go templates and does not read the file's Jinja. This one says what every LFM2
# template says for a conversation without tools; messages of role tool are wrapped as LFM2 does.
OLLAMA_TEMPLATE = """\
{{- range $i, $_ := .Messages }}<|im_start|>{{ .Role }}
{{ if eq .Role "tool" }}<|tool_response_start|>{{ .Content }}<|tool_response_end|>
{{- else }}{{ .Content }}{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
STOPS = ("<|im_end|>", "<|endoftext|>")


def _sampling(path: Path) -> tuple[Options, int]:

    file = check_file(path)
    keys = (key for key in file.metadata if key.startswith("general."))
    return default_options({key: str(file.get(key)) for key in keys}), trained_context(file)


def modelfile(path: Path) -> str:
    """Return an Ollama ``Modelfile`` for a GGUF file.

    Ollama puts BOS in front itself, so the template has none. Raises :class:`GGUFError`,
    :class:`UnsupportedError`.
    """
    options, context = _sampling(path)
    parameters: dict[str, Any] = {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repeat_penalty": options.repeat_penalty,
        "repeat_last_n": options.repeat_window,
        "num_ctx": min(context, 8192),
    }
    lines = [f"FROM {path.resolve()}", f'TEMPLATE """{OLLAMA_TEMPLATE}"""']
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    lines += [f'PARAMETER stop "{stop}"' for stop in STOPS]
    return "\n".join(lines) + "\n"


def lmstudio_preset(path: Path) -> str:
    """Return an LM Studio preset with the model's sampling; the template is in the file itself."""
    options, _ = _sampling(path)
    fields = {
        "temperature": options.temperature,
        "topKSampling": options.top_k,
        "topPSampling": {"checked": options.top_p < 1, "value": options.top_p},
        "minPSampling": {"checked": options.min_p > 0, "value": options.min_p},
        "repeatPenalty": {"checked": options.repeat_penalty != 1, "value": options.repeat_penalty},
        "stopStrings": list(STOPS),
    }
    listed = [{"key": f"llm.prediction.{key}", "value": value} for key, value in fields.items()]
    name = path.stem
    preset = {"identifier": f"@local:{name}", "name": name, "operation": {"fields": listed}}
    return json.dumps(preset, indent=2) + "\n"
