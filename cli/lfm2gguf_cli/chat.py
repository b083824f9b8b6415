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
from lfm2gguf.runner import Reply, Runner

HELP = """\
/help           this list
/system TEXT    set the system prompt and begin again
/image FILE     show an image with the next question; /audio FILE plays sound
/reset          begin again
/undo           take the last question and answer back
/stats          what the last answer cost, and what is held in memory
/device         what the model runs on
/quit           leave (or Ctrl-D)
A line that ends with \\ goes on in the next; so does everything between two lines of \"\"\".
Ctrl-C stops an answer."""


def one_answer(
    lfm: Runner,
    prompt: str,
    system: str | None,
    media: list[dict[str, Any]],
    options: dict[str, Any],
    *,
    json: bool,
) -> None:
    """Answer once, on standard output; as JSON with what it cost."""
    if not prompt:
        raise OptionError("there is no prompt: give -p TEXT, or text on standard input")
    stream = lfm.stream([*_opening(system), _question(prompt, media)], **options)
    for piece in stream:
        if not json:
            typer.echo(piece.text, nl=False)
    if json:
        typer.echo(json_module.dumps(to_json(stream.reply, lfm), indent=2, ensure_ascii=False))
    else:
        typer.echo()


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
                self._answer(text)

    def _answer(self, text: str) -> None:
        asked = [*self._history, _question(text, self._media)]
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
            return
        self._last = stream.reply
        self._history = [*asked, stream.reply.message]
        self._media = []
        if stream.reply.finish_reason != "stop":
            typer.echo(f"(ended: {stream.reply.finish_reason})")

    def _show(self, stream: Any) -> None:
        dim = sys.stdout.isatty() or None
        for piece in stream:
            if piece.thinking:
                typer.secho(piece.thinking, nl=False, dim=dim)
            elif piece.call:
                typer.secho(f"[{piece.call.name}({piece.call.arguments})]", dim=dim)
            typer.echo(piece.text, nl=False)
        typer.echo()

    def _command(self, name: str, rest: str) -> None:
        commands: dict[str, Callable[[], str]] = {
            "/help": lambda: HELP,
            "/system": lambda: self._restart(rest.strip() or None),
            "/reset": lambda: self._restart(self._system),
            "/image": lambda: self._show_with_next("image", rest),
            "/audio": lambda: self._show_with_next("audio", rest),
            "/undo": self._undo,
            "/stats": self._stats,
            "/device": lambda: str(self._lfm.device),
        }
        if name in commands:
            typer.echo(commands[name]())
        else:
            typer.echo(f"there is no {name}; /help lists the commands")

    def _restart(self, system: str | None) -> str:
        self._system, self._history = system, _opening(system)
        return "A new conversation."

    def _show_with_next(self, kind: str, path: str) -> str:
        if not Path(path.strip()).is_file():
            return f"There is no file {path.strip()!r}."
        self._media.append({"type": kind, "path": path.strip()})
        return "It goes with the next question."

    def _undo(self) -> str:
        if len(self._history) < 2:
            return "There is nothing to take back."
        question = self._history[-2]["content"]
        del self._history[-2:]
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
