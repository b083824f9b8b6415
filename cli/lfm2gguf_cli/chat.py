"""A conversation in the terminal: what is typed, what is answered, and the /commands."""

from __future__ import annotations

import dataclasses
import json as json_module
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from lfm2gguf.errors import Lfm2ggufError, OptionError
from lfm2gguf.runner import Reply, Runner, ToolCall
from lfm2gguf_cli.console import CONTROL, Display

HELP = """\
/help           this list
/system TEXT    set the system prompt and begin again
/image FILE     show an image with the next question; /audio FILE plays sound
/result TEXT    give what a function that was called has returned
/reset          begin again
/undo           take the last question and answer back
/stats          what the last answer cost, and what is held in memory
/device         what the model runs on
/quit           leave (or Ctrl-D)
A line that ends with \\ goes on in the next; so does everything between two lines of \"\"\".
Ctrl-C stops an answer."""


CONTROL_BUT_LINES = {code: text for code, text in CONTROL.items() if code != 10}


def one_answer(
    lfm: Runner,
    prompt: str,
    system: str | None,
    media: list[dict[str, Any]],
    options: dict[str, Any],
    display: Display,
) -> None:
    """Answer once, on standard output; as JSON with what it cost."""
    if not prompt:
        raise OptionError("there is no prompt: give -p TEXT, or text on standard input")
    stream = lfm.stream([*_opening(system), _question(prompt, media)], **options)
    for piece in stream:
        if not display.json:
            typer.echo(piece.text or (piece.call and called(piece.call)) or "", nl=False)
    if not display.gives(lambda: to_json(stream.reply, lfm)):
        typer.echo()


def called(call: ToolCall) -> str:
    """Return a call as a person reads it, on a line of its own."""
    arguments = ", ".join(
        f"{name}={json_module.dumps(value, ensure_ascii=False)}"
        for name, value in call.arguments.items()
    )
    return f"[{call.name}({arguments})]\n".translate(CONTROL_BUT_LINES)


def to_json(reply: Reply, lfm: Runner) -> dict[str, Any]:
    """Return a reply as plain data, with the device that gave it."""
    return {
        "text": reply.text,
        "thinking": reply.thinking,
        "tool_calls": [dataclasses.asdict(call) for call in reply.tool_calls],
        "bad_calls": [dataclasses.asdict(call) for call in reply.bad_calls],
        "finish_reason": reply.finish_reason,
        "seed": reply.seed,
        "usage": dataclasses.asdict(reply.usage),
        "device": lfm.device.to_json(),
    }


def _opening(system: str | None) -> list[dict[str, Any]]:
    return [{"role": "system", "content": system}] if system else []


def _question(text: str, media: list[dict[str, Any]]) -> dict[str, Any]:
    """Media go before the text, as the model cards of LFM2-VL want it."""
    return {"role": "user", "content": [*media, {"type": "text", "text": text}] if media else text}


class Chat:
    """The loop of questions and answers."""

    def __init__(
        self,
        lfm: Runner,
        system: str | None,
        media: list[dict[str, Any]],
        options: dict[str, Any],
    ) -> None:
        self._lfm, self._system, self._options = lfm, system, options
        self._media = media  # shown with the next question
        self._history = _opening(system)
        self._last: Reply | None = None

    def loop(self) -> None:
        """Read and answer until /quit or the end of input."""
        _line_editing()
        typer.echo(f"{self._lfm.path.name} on {self._lfm.device}\n/help lists the commands.")
        while True:
            try:
                text = read_question()
            except EOFError:
                typer.echo()
                return
            except KeyboardInterrupt:  # forget the line
                typer.echo()
                continue
            if text in ("/quit", "/exit"):
                return
            if text.startswith("/"):
                self._command(*text.partition(" ")[::2])
            elif text:
                self._answer(_question(text, self._media))

    def _answer(self, *said: dict[str, Any]) -> None:
        asked = [*self._history, *said]
        try:
            stream = self._lfm.stream(asked, overflow="drop", **self._options)
            try:
                self._show(stream)
            except KeyboardInterrupt:
                stream.cancel()
                typer.echo("\n(stopped)")
                return
        except Lfm2ggufError as error:
            typer.echo(f"lfm2gguf: {error}", err=True)
            if self._media:
                typer.echo("(the images and sounds are forgotten; show them again)")
            self._media = []
            return
        self._last = stream.reply
        for bad in stream.reply.bad_calls:
            typer.echo(f"(a call that cannot be read: {bad.reason})")
        self._history = [*asked, stream.reply.message]
        self._media = []
        if stream.reply.tool_calls:
            typer.echo("(/result TEXT gives what it returned)")
        elif stream.reply.finish_reason != "stop":
            typer.echo(f"(ended: {stream.reply.finish_reason})")

    def _show(self, stream: Any) -> None:
        dim = sys.stdout.isatty() or None
        for piece in stream:
            if piece.thinking:
                typer.secho(piece.thinking, nl=False, dim=dim)
            elif piece.call:
                typer.secho(called(piece.call), nl=False, dim=dim)
            typer.echo(piece.text, nl=False)
        typer.echo()

    def _command(self, name: str, rest: str) -> None:
        commands: dict[str, Callable[[], str]] = {
            "/help": lambda: HELP,
            "/system": lambda: self._restart(rest.strip() or None),
            "/reset": lambda: self._restart(self._system),
            "/image": lambda: self._show_with_next("image", rest),
            "/audio": lambda: self._show_with_next("audio", rest),
            "/result": lambda: self._return(rest.strip()),
            "/undo": self._undo,
            "/stats": self._stats,
            "/device": lambda: str(self._lfm.device),
        }
        if name in commands:
            if said := commands[name]():
                typer.echo(said)
        else:
            typer.echo(f"there is no {name}; /help lists the commands")

    def _restart(self, system: str | None) -> str:
        self._system, self._history = system, _opening(system)
        return "A new conversation."

    def _return(self, text: str) -> str:
        """Answer the latest call, of several the first that has no result yet."""
        results = 0
        while results < len(self._history) and self._history[-1 - results]["role"] == "tool":
            results += 1
        calls = self._history[-1 - results].get("tool_calls") if self._history else None
        if not calls or results >= len(calls):
            return "No function was called."
        call = calls[results]
        result = {"role": "tool", "tool_call_id": call.get("id", ""), "content": text}
        if results + 1 < len(calls):
            self._history.append(result)
            return f"{len(calls) - results - 1} more to give."
        self._answer(result)
        return ""

    def _show_with_next(self, kind: str, path: str) -> str:
        if not self._lfm.prompts.take_media:
            return (
                "The model takes text alone here: it was opened without a projector "
                "(--mmproj FILE), or is a text model."
            )
        if not Path(path.strip()).is_file():
            return f"There is no file {path.strip()!r}."
        self._media.append({"type": kind, "path": path.strip()})
        return "It goes with the next question."

    def _undo(self) -> str:
        asked = [i for i, message in enumerate(self._history) if message["role"] == "user"]
        if not asked:
            return "There is nothing to take back."
        question = self._history[asked[-1]]["content"]
        del self._history[asked[-1] :]
        return f"Taken back: {question if isinstance(question, str) else question[-1]['text']}"

    def _stats(self) -> str:
        if self._last is None:
            return "Nothing has been asked yet."
        usage, memory = self._last.usage, self._lfm.memory
        return (
            f"{usage.prompt_tokens} tokens in ({usage.cached_tokens} held already, "
            f"{usage.prefilled_tokens} prefilled at {usage.prefill_speed:.0f}/s), "
            f"{usage.completion_tokens} out at {usage.decode_speed:.1f}/s, "
            f"first after {usage.time_to_first_token:.2f} s; "
            f"{memory.state_bytes / 1e6:.1f} MB of saved states"
        )


def read_question() -> str:
    """Read a line, or several: after a trailing backslash, or between lines of three quotes."""
    line = input("> ")
    if line.strip() == '"""':
        lines: list[str] = []
        while (line := input("... ")).strip() != '"""':
            lines.append(line)
        return "\n".join(lines)
    while line.endswith("\\"):
        line = line[:-1] + "\n" + input("... ")
    return line.strip()


def _line_editing() -> None:
    """Arrow keys and history, where the system has them."""
    try:
        import readline  # noqa: F401 - importing it is what turns it on
    except ImportError:
        return
