"""``run``, ``devices`` and ``export`` as a person and a pipe see them."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lfm2gguf import convert
from lfm2gguf.llamacpp.backend import BACKENDS, RPC
from lfm2gguf.runner import ToolCall
from lfm2gguf_cli.chat import called
from tests.making.models import EXAMPLE, tiny_gguf
from tests.making.multimodal import image, png
from tests.making.sounds import sound, wav

COMMAND = [sys.executable, "-m", "lfm2gguf_cli.main"]


def lfm2gguf(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=text, capture_output=True, text=True, check=False
    )


def run_model(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    return lfm2gguf("run", tiny_gguf(), "--device", "cpu", "--threads", "1", *arguments, text=text)


@pytest.mark.slow
def test_one_answer_in_a_pipe() -> None:
    options = ("--seed", "1", "-n", "12")
    asked = run_model("-p", "What does len do?", *options)
    piped = run_model(*options, text="What does len do?\n")
    assert asked.returncode == 0
    assert asked.stdout == piped.stdout
    assert asked.stdout.strip()
    assert "\x1b" not in asked.stdout
    assert asked.stderr == piped.stderr == ""


def test_one_answer_as_json() -> None:
    done = run_model("-p", "Hi", "-n", "4", "--seed", "7", "--json")
    value = json.loads(done.stdout)
    assert value["seed"] == 7
    assert value["device"]["backend"] == "CPU"
    assert value["usage"]["completion_tokens"] <= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "none.gguf", "-p", "x"), "no such file"),
        (("run", "none.gguf"), "no such file"),
        (("export", "ollama", "none.gguf"), "no such file"),
        (("run", __file__, "-p", "x"), "not a GGUF"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    done = lfm2gguf(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_an_image_and_its_projector(vision: tuple[Path, Path], tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(png(image()))
    model, projector = map(str, vision)
    ask = ("run", model, "-p", "What is it?", "-n", "3", "--json")
    plain = json.loads(lfm2gguf(*ask).stdout)
    shown = json.loads(lfm2gguf(*ask, "--mmproj", projector, "--image", str(picture)).stdout)
    assert shown["usage"]["prompt_tokens"] >= plain["usage"]["prompt_tokens"] + 80
    refused = lfm2gguf(*ask, "--image", str(picture))
    assert refused.returncode == 2
    assert "convert --mmproj" in refused.stderr


@pytest.mark.slow
def test_a_sound_and_its_projector(audio: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "sound.wav").write_bytes(wav(sound()))
    model, projector = map(str, audio)
    ask = ("run", model, "-p", "What is it?", "-n", "3", "--json", "--mmproj", projector)
    plain = json.loads(lfm2gguf(*ask).stdout)
    heard = json.loads(lfm2gguf(*ask, "--audio", str(tmp_path / "sound.wav")).stdout)
    assert heard["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"] + 17


@pytest.mark.slow
def test_an_adapter(adapted: dict[str, Path]) -> None:
    ask = ("run", str(adapted["base"]), "-p", "Who?", "-n", "3", "--json")
    assert lfm2gguf(*ask, "--lora", str(adapted["a"])).returncode == 0
    refused = lfm2gguf(*ask, "--lora", str(adapted["base"]))
    assert refused.returncode == 2
    assert "not a LoRA adapter" in refused.stderr


def test_no_prompt_is_an_error() -> None:
    done = run_model()
    assert (done.returncode, done.stdout) == (2, "")
    assert "no prompt" in done.stderr


@pytest.mark.slow
def test_an_answer_under_a_schema_and_a_call_that_is_shown(tmp_path: Path) -> None:
    wanted = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
    done = run_model("-p", "Hi", "--seed", "1", "--json-schema", wanted)
    assert isinstance(json.loads(done.stdout)["a"], int)
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "add"}}]')
    assert run_model("-p", "Hi", "-n", "4", "--tools", str(tools)).returncode == 0
    refused = run_model("-p", "Hi", "--tools", str(tmp_path / "none.json"))
    assert refused.returncode == 2
    assert "--tools" in refused.stderr


def test_a_call_is_shown_as_code() -> None:
    call = ToolCall("add", {"a": 1, "b": "x\x1b[2J"})
    assert called(call) == '[add(a=1, b="x\\u001b[2J")]\n'


def test_devices_says_what_is_there_and_how_to_get_the_rest() -> None:
    text = lfm2gguf("devices").stdout
    value = json.loads(lfm2gguf("devices", "--json").stdout)
    assert re.search(r"^cpu ", text, re.MULTILINE)
    assert value["devices"][0]["use"] == "cpu" or len(value["devices"]) > 1
    for name, reason in value["missing"].items():
        assert reason.startswith(f"{name}: ")
        assert reason in text
        if "built without" in reason:
            assert (RPC if name == "rpc" else BACKENDS[name]).install in reason
    for name, known in value["backends"].items():
        assert known["install"] == BACKENDS[name].install
        assert (name in value["missing"]) == all(d["use"] != f"{name}:0" for d in value["devices"])


@pytest.mark.slow
def test_export_has_template_stops_and_sampling(tmp_path: Path) -> None:
    target = tmp_path / "Modelfile"
    done = lfm2gguf("export", "ollama", tiny_gguf(), "-o", target)
    assert done.returncode == 0, done.stderr
    text = target.read_text("utf-8")
    assert text.startswith(f"FROM {tiny_gguf().resolve()}\n")
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER temperature 0.3\n" in text
    assert "PARAMETER min_p 0.15\n" in text
    assert "<|im_start|>assistant" in text
    assert "<|startoftext|>" not in text  # Ollama writes BOS itself
    again = lfm2gguf("export", "ollama", tiny_gguf(), "-o", target)
    assert again.returncode == 2
    assert "--force" in again.stderr
    preset = json.loads(lfm2gguf("export", "lmstudio", tiny_gguf()).stdout)
    fields = {field["key"]: field["value"] for field in preset["operation"]["fields"]}
    assert fields["llm.prediction.minPSampling"] == {"checked": True, "value": 0.15}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_conversation_in_a_terminal() -> None:
    terminal = Terminal("run", str(tiny_gguf()), "--device", "cpu", "--threads", "1", "-n", "30")
    terminal.expect("/help lists the commands")
    terminal.expect("> ")
    terminal.send("What does len do?\n")
    terminal.expect("\n> ")
    terminal.send("/stats\n")
    terminal.expect("tokens in")
    terminal.send("first \\\n")
    terminal.expect("... ")
    terminal.send("second\n")
    terminal.expect("\n> ")
    terminal.send("/undo\n")
    terminal.expect("Taken back: first")
    terminal.send("/system Be brief.\n")
    terminal.expect("A new conversation.")
    terminal.send("/image README.md\n")
    terminal.expect("The model takes text alone here")
    terminal.send("/result 3\n")
    terminal.expect("No function was called.")
    terminal.send("What does len do?\n")  # what was refused does no harm
    terminal.expect("\n> ")
    terminal.send("/nonsense\n")
    terminal.expect("there is no /nonsense")
    terminal.send("/quit\n")
    assert terminal.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_ctrl_c_at_the_prompt_and_ctrl_d() -> None:
    terminal = Terminal("run", str(tiny_gguf()), "--device", "cpu", "--threads", "1")
    terminal.expect("> ")
    terminal.send("half a question")
    terminal.expect("half a question")
    for _ in range(30):  # CPython's input() sees no Ctrl-C that comes just before it waits again
        terminal.send("\x03")
        if terminal.shows("\n> ", 2):
            break
    terminal.expect("\n> ")
    terminal.send("/device\n")
    terminal.expect("CPU")
    terminal.expect("> ")  # before it Ctrl-D would be the terminal's, not the prompt's
    terminal.send("\x04")
    assert terminal.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_ctrl_c_stops_an_answer_and_not_the_program(tmp_path: Path) -> None:
    """The file asks for a temperature at which an answer's end is one token of many."""
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "hot"))
    sampling = {"do_sample": True, "temperature": 90.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    (folder / "generation_config.json").write_text(json.dumps(sampling), "utf-8")
    (file,) = convert(folder, tmp_path, "Q8_0", jobs=1).files
    terminal = Terminal("run", str(file.path), "--device", "cpu", "--threads", "1")
    terminal.expect("> ")
    for _ in range(30):  # one that ends by itself first leaves the Ctrl-C to the prompt
        terminal.send("Go on.\n")
        terminal.expect("Go on.\n")
        time.sleep(0.05)
        terminal.send("\x03")
        terminal.expect("\n> ")
        if "(stopped)" in terminal.passed:
            break
    assert "(stopped)" in terminal.passed
    terminal.send("/device\n")
    terminal.expect("CPU")
    terminal.send("/quit\n")
    assert terminal.wait() == 0


class Terminal:
    """The command in a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        import pty

        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "dumb"
            os.execv(COMMAND[0], [*COMMAND, *arguments])
        self.passed = self.seen = ""

    def send(self, text: str) -> None:
        os.write(self.file, text.encode())

    def expect(self, text: str) -> None:
        assert self.shows(text, 60), self.seen
        self.passed, self.seen = self.seen.replace("\r\n", "\n").split(text, 1)

    def shows(self, text: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while text not in self.seen.replace("\r\n", "\n"):
            if time.monotonic() > end:
                return False
            if select.select([self.file], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.file, 4096).decode("utf-8", "replace")
                except OSError:
                    raise AssertionError(f"the program has ended: {self.seen}") from None
        return True

    def wait(self) -> int:
        while True:
            try:
                if not os.read(self.file, 4096):
                    break
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
