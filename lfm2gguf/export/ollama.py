"""A chat template in Go's language, as Ollama wants it, made by asking the file's own Jinja.

Members differ in what stands around a list of tools and a tool's result, and in whose thinking
stays in the prompt; the rest is ChatML. What Ollama hands to a template (``System``, ``Messages``,
``Tools``, the functions ``json`` and ``currentDate``): ``template/template.go``, 0.14 on.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lfm2gguf.chat.dialect import Dialect
from lfm2gguf.chat.template import Template
from lfm2gguf.errors import OptionError, UnsupportedError

_PROBE = "lfm2gguf_probe"
_ASKED = {"role": "user", "content": "?"}
_SAID = {"role": "assistant", "content": "!"}
_THOUGHT = {**_SAID, "thinking": _PROBE}

# Words in capitals are replaced. Ollama puts BOS in front. A call's strings are quoted as Go does
# (%q), which LFM2's dialect reads.
_GO = """\
{{- $from := 0 }}
{{- range $i, $m := .Messages }}{{ if eq $m.Role "THINKS_FROM" }}{{ $from = $i }}{{ end }}{{ end }}
{{- if or .System .Tools }}TURN_STARTsystem
{{ .System }}
{{- if .Tools }}{{ if .System }}SYSTEM_END{{ end }}TOOLS_START
{{- range $i, $tool := .Tools }}{{ if $i }}, {{ end }}{{ json $tool.Function }}{{ end }}TOOLS_END
{{- end }}TURN_END
{{ end }}
{{- range $i, $m := .Messages }}
{{- if ne .Role "system" }}TURN_START{{ .Role }}
{{ if eq .Role "tool" }}RESULT_START{{ .Content }}RESULT_END
{{- else }}
{{- if and .Thinking (ge $i $from) }}THINKING_START{{ .Thinking }}THINKING_END{{ end }}
{{- if .ToolCalls }}CALLS_START
{{- range $n, $call := .ToolCalls }}{{ if $n }}, {{ end }}CALL_OPENS
{{- $first := true }}
{{- range $name, $x := $call.Function.Arguments }}{{ if not $first }}, {{ end }}ARGUMENT
{{- if eq (printf "%T" $x) "string" }}{{ printf "%q" $x }}{{ else }}{{ json $x }}{{ end }}
{{- $first = false }}{{ end }}CALL_CLOSES{{ end }}CALLS_END
{{- end }}
{{- .Content }}
{{- end }}TURN_END
{{ end }}
{{- end }}TURN_STARTassistant
"""


def go_template(source: str) -> str:
    """Return a model's chat template for Ollama.

    Raises:
        GGUFError: it is not Jinja.
        UnsupportedError: it is not ChatML.

    """
    template = Template(source)
    dialect = template.dialect
    begin, end = dialect.turn
    if _around(template, [{"role": "user", "content": _PROBE}], _PROBE) != (
        f"{begin}user\n",
        f"{end}\n{begin}assistant\n",
    ):
        raise UnsupportedError(
            "the file's chat template is not LFM2's ChatML: write Ollama's TEMPLATE by hand"
        )
    tool = '{"name": "lfm2gguf_tool"}', [{"name": "lfm2gguf_tool"}]
    tools = _around(template, [_ASKED], *tool)
    start = tools[0].rpartition(f"{begin}system\n")[2]
    system, _ = _around(template, [{"role": "system", "content": _PROBE}, _ASKED], *tool)
    result = _around(template, [_ASKED, _SAID, {"role": "tool", "content": _PROBE}], _PROBE)
    parts = {
        "THINKS_FROM": _thinks_from(template),
        "SYSTEM_END": system.rpartition(_PROBE)[2].removesuffix(start),
        "TOOLS_START": start,
        "TOOLS_END": tools[1].partition(end)[0],
        "RESULT_START": result[0].rpartition(f"{begin}tool\n")[2],
        "RESULT_END": result[1].partition(end)[0],
        **_markers(dialect),
    }
    today = datetime.now().strftime("%Y-%m-%d")
    text = _GO
    for name, part in parts.items():
        text = text.replace(name, part.replace(today, "{{ currentDate }}"))
    return text


def _markers(dialect: Dialect) -> dict[str, str]:
    style = dialect.style
    return {
        "TURN_START": dialect.turn[0],
        "TURN_END": dialect.turn[1],
        "THINKING_START": dialect.thinking[0],
        "THINKING_END": dialect.thinking[1],
        "CALLS_START": dialect.calls[0] + style.first,
        "CALLS_END": style.last + dialect.calls[1],
        "CALL_OPENS": style.opening("{{ $call.Function.Name }}"),
        "CALL_CLOSES": style.closes,
        "ARGUMENT": style.assignment("{{ $name }}"),
    }


def _around(
    template: Template, messages: list[Any], probe: str, tools: list[Any] | None = None
) -> tuple[str, str]:
    """Return what a template writes before and behind a probe, which it may leave out."""
    try:
        before, _, behind = template.prompt(messages, tools).partition(probe)
    except OptionError:
        return "", ""
    return (before, behind)


def _thinks_from(template: Template) -> str:
    """Return whose last message it is before which thinking is dropped; empty: it never is."""
    later = {"user": [_ASKED, _THOUGHT, _ASKED], "assistant": [_ASKED, _THOUGHT, _ASKED, _SAID]}
    dropped = (role for role, talk in later.items() if _PROBE not in template.prompt(talk))
    return next(dropped, "")
