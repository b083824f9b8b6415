"""The entry point: the commands, and the boundary where errors become exit codes."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer

from lfm2gguf.errors import Lfm2ggufError
from lfm2gguf_cli.bench import bench
from lfm2gguf_cli.convert import convert
from lfm2gguf_cli.convert_lora import convert_lora
from lfm2gguf_cli.devices import devices
from lfm2gguf_cli.doctor import doctor
from lfm2gguf_cli.export import export
from lfm2gguf_cli.inspect import inspect
from lfm2gguf_cli.quantize import quantize
from lfm2gguf_cli.run import run
from lfm2gguf_cli.serve import serve
from lfm2gguf_cli.verify import verify

BAD_INPUT = 2  # exit codes: 0 done, 1 a check failed, 2 bad usage or input, 130 interrupted
INTERRUPTED = 130

app = typer.Typer(
    name="lfm2gguf",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    convert, convert_lora, quantize, verify, inspect, doctor, run, serve, bench, devices, export,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)


def _print_version(value: bool) -> None:
    if value:
        import lfm2gguf

        typer.echo(f"lfm2gguf {lfm2gguf.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Convert, verify and run LFM2 models as GGUF. NumPy only; the same bytes as llama.cpp."""


def _terminated(signal_number: int, frame: object) -> NoReturn:
    sys.exit(128 + signal_number)  # by way of every finally: partial files are removed


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except Lfm2ggufError as error:
        typer.echo(f"lfm2gguf: {error}", err=True)
        sys.exit(BAD_INPUT)
    except OSError as error:  # such as a path that is too long to be one
        typer.echo(f"lfm2gguf: {error.filename or 'system'}: {error.strerror or error}", err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
