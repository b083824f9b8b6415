"""What Ollama and LM Studio are told: templates rendered by Go's own text/template, and presets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from lfm2gguf.chat.template import as_messages
from lfm2gguf.chat.tool_calls import parse_calls
from lfm2gguf.errors import UnsupportedError
from lfm2gguf.export.ollama import go_template
from lfm2gguf.export.programs import STOPS, export_for
from tests.chat.test_template import NAMES, load
from tests.cli.command import COMMAND, run
from tests.golden.template_cases import CASES
from tests.making.models import tiny_gguf

RENDER = Path(__file__).parent / "ollama" / "render.go"
SPAN = re.compile(r"<\|tool_call_start\|>(.*?)<\|tool_call_end\|>", re.DOTALL)
# Ollama has no conversations without a prompt for the next answer, and contents are texts.
COMPARED = [name for name in CASES if name not in ("no prompt", "tool data", "parts", "no tools")]
# Thinking that stands in a content is Ollama's parser's to take out; of one it was not, its
# template language cannot cut a string. What is asked to be kept, Ollama has no word for.
COMPARED = [name for name in COMPARED if name not in ("thought", "thought twice", "thinking kept")]


@pytest.fixture(scope="session")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("go"):
        pytest.skip("Go is not installed (apt install golang-go): nothing renders Go's templates")
    program = tmp_path_factory.mktemp("go") / "render"
    subprocess.run(["go", "build", "-o", program, RENDER], check=True)
    return program


def as_ollama(case: dict[str, Any]) -> dict[str, Any]:
    """A conversation as Ollama's API has it: tools in OpenAI's form, one name for thinking."""
    messages = [
        {**message, "thinking": message.get("thinking", message.get("reasoning_content", ""))}
        for message in as_messages(case["messages"])
    ]
    tools = [{"type": "function", "function": tool} for tool in flat(case)]
    return {"messages": messages, "tools": tools}


def flat(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools without OpenAI's wrapping, as Liquid's documentation and Ollama render them."""
    return [tool.get("function", tool) for tool in case.get("tools", ())]


def calls(span: str) -> str:
    return json.dumps([[call.name, call.arguments] for call in parse_calls(span)], sort_keys=True)


def normal(text: str) -> str:
    """A prompt with its calls and tools spelled one way: Go sorts, and writes JSON narrow."""
    text = SPAN.sub(lambda span: calls(span[1]), text)
    head, opened, rest = text.partition("List of tools: ")
    if not opened:
        return text
    at = rest.index("[")
    tools, end = json.JSONDecoder().raw_decode(rest, at)
    return head + opened + rest[:at] + json.dumps(tools, sort_keys=True) + rest[end:]


@pytest.mark.parametrize("name", NAMES)
def test_go_renders_what_jinja_renders(name: str, renderer: Path) -> None:
    template = load(name)
    cases = [CASES[case] for case in COMPARED]
    asked = {"template": go_template(template.source), "cases": [as_ollama(c) for c in cases]}
    done = subprocess.run([renderer], input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for case, name, text in zip(cases, COMPARED, json.loads(done.stdout), strict=True):
        expected = template.prompt(case["messages"], flat(case))
        assert normal(text) == normal(expected).removeprefix("<|startoftext|>"), name


def test_a_template_that_is_no_chatml_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="not LFM2's ChatML"):
        go_template("{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}")


def test_the_modelfile_has_template_parser_stops_and_sampling() -> None:
    made = export_for("ollama", tiny_gguf())
    assert made.text.startswith(f'FROM {tiny_gguf().resolve()}\nTEMPLATE """{made.template}"""\n')
    lines = made.text.splitlines()
    assert {"PARSER lfm2", "REQUIRES 0.14.3", 'PARAMETER stop "<|im_end|>"'} <= set(lines)
    assert {f"PARAMETER {name} {value}" for name, value in made.settings.items()} <= set(lines)
    assert made.settings["temperature"] == 0.3
    assert made.settings["min_p"] == 0.15
    assert "<|startoftext|>" not in made.text  # Ollama writes BOS itself


@pytest.mark.parametrize(
    ("name", "parser"),
    [
        ("LFM2.5-1.2B-Instruct", "lfm2"),
        ("LFM2.5-1.2B-Thinking", "lfm2-thinking"),
        ("LFM2.5-8B-A1B", "lfm2-thinking"),
        ("LFM2-8B-A1B", "lfm2"),
    ],
)
def test_who_thinks_has_the_parser_for_it(name: str, parser: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "lfm2")
    writer.add_name(name)
    writer.add_chat_template(load("tiny-lfm2").source)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert f"\nPARSER {parser}\n" in export_for("ollama", path).text


def test_a_file_without_a_template(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "lfm2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UnsupportedError, match="no chat template"):
        export_for("ollama", path)
    assert json.loads(export_for("lmstudio", path).text)["name"] == "model"


# lmstudio-js, packages/lms-kv-config/src/schema.ts: numeric, checkboxNumeric and stringArray
KINDS = {
    "llm.prediction.temperature": float,
    "llm.prediction.topKSampling": int,
    "llm.prediction.topPSampling": dict,
    "llm.prediction.minPSampling": dict,
    "llm.prediction.repeatPenalty": dict,
    "llm.prediction.stopStrings": list,
}


def test_the_preset_is_what_lm_studio_reads() -> None:
    preset = json.loads(export_for("lmstudio", tiny_gguf()).text)
    assert set(preset) == {"identifier", "name", "changed", "operation", "load"}
    assert preset["identifier"].startswith("@local:")
    assert preset["load"] == {"fields": []}
    fields = {field["key"]: field["value"] for field in preset["operation"]["fields"]}
    assert {key: type(value) for key, value in fields.items()} == KINDS
    for value in fields.values():
        assert not isinstance(value, dict) or set(value) == {"checked", "value"}
    assert fields["llm.prediction.minPSampling"] == {"checked": True, "value": 0.15}
    assert fields["llm.prediction.stopStrings"] == list(STOPS)


def test_as_json(tmp_path: Path) -> None:
    target = tmp_path / "Modelfile"
    shown = json.loads(run("export", "ollama", tiny_gguf(), "--json").out)
    written = json.loads(run("export", "ollama", tiny_gguf(), "-o", target, "--json").out)
    assert shown == {
        **export_for("ollama", tiny_gguf()).to_json(),
        "output": None,
        "stops": [*STOPS],
    }
    assert written == {**shown, "output": str(target)}
    assert target.read_text("utf-8") == shown["text"]
    assert run("export", "ollama", tiny_gguf(), "-o", target, "--json").code == 2


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """The system ends every file at 20 bytes, as a full disk would."""
    resource = pytest.importorskip("resource", reason="needs limits as POSIX has them")
    target = tmp_path / "Modelfile"
    target.write_text("precious")
    done = subprocess.run(
        [*COMMAND, "export", "ollama", tiny_gguf(), "-o", target, "--force"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)),
    )
    assert done.returncode == 2
    assert f"{target}: cannot be written" in done.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    target = tmp_path / "Modelfile"
    done = run("export", "ollama", tiny_gguf(), "-o", target)
    assert (done.code, "FROM" in target.read_text("utf-8")) == (0, True)
    first, *rest = done.out.splitlines()
    assert first == f"{target}: an Ollama Modelfile for {tiny_gguf()}"
    assert rest[0] == "template: written for it"
    assert "temperature 0.3" in rest[2]
    assert done.err == f"next: ollama create {tiny_gguf().stem.lower()} -f {target}\n"
    preset, data = tmp_path / "p.json", tmp_path / "data.json"
    done = run("export", "lmstudio", tiny_gguf(), "-o", preset, "--json-file", data)
    assert "temperature 0.3" in done.out
    assert json.loads(data.read_text("utf-8"))["output"] == str(preset)
    assert "config-presets" in done.err
