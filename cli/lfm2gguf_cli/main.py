"""The entry point: the commands, and the boundary where errors become exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from lfm2gguf.errors import Lfm2ggufError
from lfm2gguf_cli.nearest import Command
from lfm2gguf_cli.signals import forget_put_off, has_stopped, heard_again, interrupt_by, stop

BAD_INPUT = 2  # exit codes: 0 done, 1 a check failed, 2 bad usage or input, 130 interrupted
INTERRUPTED = 130
NO_READER = 141  # as if by SIGPIPE, which Python ignores: what reads the output has ended
HELP = ["-h", "--help"]

# A command is the function of its name in the module of its name, which is imported when the
# command is called: the list below is all that `lfm2gguf --help` needs.
COMMANDS = {
    "convert": "Convert a checkpoint to GGUF, quantized, in one pass.",
    "convert-lora": "Convert a LoRA adapter to a GGUF file.",
    "quantize": "Quantize a GGUF file, whoever wrote it.",
    "imatrix": "Compute, merge or show importance matrices.",
    "calibrate": "Convert with weights rounded for what each layer sees.",
    "verify": "Prove that a file still says what its checkpoint says.",
    "publish": "Put a checkpoint's GGUF files on the Hub, judged.",
    "inspect": "Show the metadata and tensors of a file or checkpoint.",
    "doctor": "Find what is wrong with a file or checkpoint.",
    "run": "Chat in the terminal, or get one answer.",
    "serve": "Serve a model as OpenAI's API.",
    "bench": "Measure speed over depth and workloads.",
    "devices": "Show what models can run on here.",
    "rpc-server": "Lend this machine to a model on another one.",
    "export": "Write the settings that another program needs.",
}


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line for ``arguments``, with the command they name imported."""
    completing = "_LFM2GGUF_COMPLETE" in os.environ  # the shell asks for a command's options
    # Where no option comes before the command, there is none to read: for that alone Typer would
    # import pydantic, which takes longer than to show the command's help.
    begins = bool(arguments) and arguments[0] in COMMANDS and not completing
    app = typer.Typer(
        name="lfm2gguf",
        add_completion=not begins,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # importing Rich to print help takes longer than all the rest
        context_settings={"help_option_names": [] if begins else HELP},
    )
    app.callback(help=common.__doc__)(_begin if begins else common)
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        called = completing or name == named
        settings = {"help_option_names": HELP}
        add = app.command(name, cls=Command, short_help=summary, context_settings=settings)
        add(_load(name) if called else _not_called)
    return app


def _load(name: str) -> Callable[..., Any]:
    function = name.replace("-", "_")
    command: Callable[..., Any] = getattr(import_module(f"lfm2gguf_cli.{function}"), function)
    return command


def _not_called() -> None:
    """Stand for a command that the arguments do not name."""


def _print_version(value: bool) -> None:
    if value:
        import lfm2gguf

        typer.echo(f"lfm2gguf {lfm2gguf.__version__}")
        raise typer.Exit


def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Convert, verify and run LFM2 models as GGUF. NumPy only; the same bytes as llama.cpp."""
    _begin()


def _begin() -> None:
    """Begin the command."""
    interrupt_by(signal.SIG_DFL, stop)


def one_line(text: str) -> str:
    """Return a text that may quote a file as one line that commands no terminal."""
    kept = text.replace("\n", " ").replace("\t", " ")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in kept)


def _refuse(message: str) -> NoReturn:
    with contextlib.suppress(OSError):  # standard error may be what cannot be written
        typer.echo(one_line(f"lfm2gguf: {message}"), err=True)
    sys.exit(BAD_INPUT)


def _of_system(error: OSError) -> str:
    try:
        Path.cwd()
    except OSError:
        return "the current folder is no longer there: change to another (cd), and try again"
    return f"{error.filename or 'system'}: {error.strerror or error}"


def _open_streams() -> None:
    """Open those of the three streams that are closed, so that no other file takes their place.

    What C code prints would go into a file that had a closed stream's number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # the numbers' order
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _drop_unwritten(stream: TextIO) -> None:
    """Drop what a stream holds and cannot write: Python would try it again, and exit with 120."""
    try:
        stream.flush()
    except OSError:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())


def _unexpected(error: Exception) -> NoReturn:
    if os.environ.get("LFM2GGUF_TRACEBACK"):
        raise error
    _refuse(
        f"a fault of lfm2gguf: {type(error).__name__}: {error}; please report it, with the command "
        "and what it says with LFM2GGUF_TRACEBACK=1 in the environment"
    )


def main() -> None:
    """Run the command line."""
    _open_streams()
    signal.signal(signal.SIGTERM, stop)
    interrupt_by(signal.default_int_handler, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # files hold texts that are not UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            with heard_again():
                make_app(sys.argv[1:])()
        finally:
            sys.stdout.flush()  # a full disk is said, and not found at Python's end
    except Lfm2ggufError as error:
        _refuse(str(error))
    except BrokenPipeError:
        sys.exit(NO_READER)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Click and Rich say 1, a failed check
            sys.exit(NO_READER)
        raise
    except OSError as error:  # such as a path that is too long to be one
        _refuse(_of_system(error))
    except MemoryError:
        _refuse("there is not enough memory")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        _unexpected(error)
    finally:
        _drop_unwritten(sys.stdout)
        _drop_unwritten(sys.stderr)
        if has_stopped():  # and all is tidied up
            forget_put_off()
            interrupt_by(stop, signal.SIG_DFL)
        else:
            interrupt_by(signal.SIG_DFL, signal.default_int_handler)


if __name__ == "__main__":
    main()
