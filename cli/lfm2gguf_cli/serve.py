"""``lfm2gguf serve``."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from lfm2gguf_cli.deadline import end_within
from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.running import ModelOrId, OpeningOptions, PlaceOptions
from lfm2gguf_cli.signals import stop


@grouped
def serve(
    model: ModelOrId,
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8080,
    name: Annotated[
        str | None, typer.Option(help="The model's name.", show_default="the file's")
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="LFM2GGUF_API_KEY",
            metavar="KEY",
            help="Required for all but /health and the page; give it again for a second one.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="LFM2GGUF_API_KEY_FILE", metavar="FILE", help="Keys, one a line; # for remarks."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A proxy's name for the server, where it listens on loopback; * is any.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="An origin whose pages may use the server (https://chat.example), besides this "
            "machine's; * is any.",
        ),
    ] = None,
    strict_model: Annotated[
        bool, typer.Option("--strict-model", help="Refuse requests for a model of another name.")
    ] = False,
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient",
            help="Pass over settings of requests that have no effect here, with a warning in the "
            "log and in X-Lfm2gguf-Warning, instead of refusing them.",
        ),
    ] = False,
    access_log: Annotated[
        bool, typer.Option(help="A line a request, without prompts and keys.")
    ] = True,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A LoRA adapter (convert-lora), chosen by requests as model NAME; several times.",
        ),
    ] = None,
    parallel: Annotated[int, typer.Option(help="Answers computed together.", min=1)] = 4,
    opening: OpeningOptions,
    place: PlaceOptions,
    inject_tools: Annotated[
        bool,
        typer.Option(
            "--inject-tools/--refuse-tools",
            help="Where the chat template never mentions tools: list them in the system message.",
        ),
    ] = True,
    mmap: Annotated[
        bool,
        typer.Option(
            "--mmap/--no-mmap",
            help="Leave the weights in the file, in place of reading them: a file that is cut "
            "while it is served then ends the server.",
        ),
    ] = False,
    any_grammar: Annotated[
        bool,
        typer.Option(
            "--any-grammar",
            help="Take clients' grammars (GBNF) without a bound on their cost; an ambiguous one "
            "can stop the server.",
        ),
    ] = False,
    max_body: Annotated[
        int, typer.Option(help="Bytes of a request; larger ones get 413.", min=1)
    ] = 32 << 20,
    max_prompt: Annotated[
        int | None,
        typer.Option(help="Tokens; longer prompts get 400.", show_default="the context", min=1),
    ] = None,
    max_queue: Annotated[int, typer.Option(help="Answers that wait; more get 429.", min=0)] = 64,
    max_seconds: Annotated[
        float, typer.Option(help="Until an answer is whole; later ones get 504.", min=0.001)
    ] = 600,
    chat_page: Annotated[bool, typer.Option("--page/--no-page", help="A chat page at /.")] = True,
    drain_seconds: Annotated[
        float, typer.Option(help="For answers under way when the server is ended.", min=0)
    ] = 30,
) -> None:
    """Serve a model as OpenAI's API: /v1/chat/completions and the like, /health, /metrics.

    Example: lfm2gguf serve LFM2-1.2B-Q4_K_M.gguf
    """
    keys = [*(api_key or []), *(_keys_in(api_key_file) if api_key_file else [])]
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each client that hangs up
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if access_log:
        logging.getLogger("lfm2gguf.server.access").setLevel(logging.INFO)
    settings = {
        **place.arguments(), "parallel": parallel, "inject_tools": inject_tools, "mmap": mmap
    }  # fmt: skip
    settings["adapters"] = dict(map(_adapter, lora or ()))
    file = opening.fetch(model)
    with _uncollected(), contextlib.ExitStack() as served:
        with (
            _taking_turns(),
            _ahead(file, opening, place, mmap) as begun,
            _imported_beside(begun) as imported,
        ):
            lfm = served.enter_context(opening.open(file, **settings))
            server = imported.result()
        limits = server.Limits(
            body_bytes=max_body, prompt_tokens=max_prompt, queue=max_queue, seconds=max_seconds,
            any_grammar=any_grammar,
        )  # fmt: skip
        app = server.create_app(
            lfm,
            name=name,
            api_key=keys,
            limits=limits,
            strict_model=strict_model,
            lenient=lenient,
            cors_origins=cors_origin or (),
            chat_page=chat_page,
        )

        def started(url: str) -> None:
            # for the moment until uvicorn takes it over to drain, and for when it has drained
            signal.signal(signal.SIGTERM, functools.partial(stop, code=0))
            typer.echo(f"{lfm.path.name} on {lfm.device}", err=True)
            typer.echo(f"{url}/v1")
            opened = f"open {url}/ in a browser, or " if chat_page else ""
            typer.echo(f"next: {opened}give a client {url}/v1; Ctrl-C ends it", err=True)
            end_within(drain_seconds)
            gc.freeze()  # what is there now stays: looking through it would hold answers up
            gc.enable()

        server.run(
            app,
            host,
            port,
            drain_seconds=drain_seconds,
            hosts=allow_host or (),
            started=started,
        )


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage: of modules and a vocabulary that have just been made nothing is."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _taking_turns() -> Iterator[None]:
    """Let Python's threads in sooner: before each tensor llama.cpp asks whether it is to go on.

    It would wait for five milliseconds while another thread imports modules.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.00005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _ahead(
    file: str, opening: OpeningOptions, place: PlaceOptions, mmap: bool
) -> contextlib.AbstractContextManager[bool]:
    """Let llama.cpp load a file that is known, while all that serves it is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's threads, which spin at first
    from lfm2gguf.loadable import loading_ahead

    return loading_ahead(Path(file), place.device or "auto", mmap=mmap, projector=opening.mmproj)


@contextlib.contextmanager
def _imported_beside(known: bool) -> Iterator[Future[Any]]:
    """Import the server in a thread, while llama.cpp loads the model in this one.

    What the load needs is imported before: two threads that import packages which have modules
    in common may each wait for the other.

    Raises:
        MissingDependencyError: the server cannot be imported, which is known at once.
    """
    from lfm2gguf import runner, server  # noqa: F401
    from lfm2gguf.llamacpp import devices

    devices()
    if not known:
        from lfm2gguf.loadable import check_rules  # noqa: F401
    server.check_installed()

    def load() -> Any:
        _ = server.Limits, server.create_app, server.run
        return server

    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(load)


def _adapter(given: str) -> tuple[str, str]:
    """Return an adapter's name and file."""
    name, equals, file = given.partition("=")
    if not (name and equals and file):
        raise typer.BadParameter(f"--lora {given}: give NAME=FILE, such as legal=adapter.gguf")
    return name, file


def _keys_in(file: Path) -> list[str]:
    """Read a file of keys; one without any would open the server to all."""
    from lfm2gguf.errors import OptionError
    from lfm2gguf.text_file import SMALL, read_text_file

    text = read_text_file(file, "--api-key-file", largest=SMALL)
    keys = [line.strip() for line in text.splitlines()]
    found = [key for key in keys if key and not key.startswith("#")]
    if not found:
        raise OptionError(f"--api-key-file: {file} has no keys; write one a line")
    return found
