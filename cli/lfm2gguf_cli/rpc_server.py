"""``lfm2gguf rpc-server``."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.running import Threads, where


@grouped
def rpc_server(
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen. Whoever reaches it can use this machine's memory.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.", min=1, max=65535)] = 50052,
    device: Annotated[str, where("auto")] = "auto",
    threads: Threads = None,
) -> None:
    """Lend this machine's memory and processors to a model that runs on another one.

    There it is --device rpc:HOST:PORT. Both need a llama-cpp-python of one version that is built
    with -DGGML_RPC=on. It speaks without keys or encryption: never in an open network.

    Example: lfm2gguf rpc-server --host 10.0.0.2
    """
    from lfm2gguf.llamacpp import check_threads, choose, default_threads, devices, serve_devices

    check_threads(threads)
    address = f"{host}:{port}"
    on = choose(device) or [one for one in devices() if one.kind == "cpu"]
    names = ", ".join(one.description for one in on)
    # C code accepts clients until the process ends: the main thread waits for Ctrl-C
    failed: list[Exception] = []

    def work() -> None:
        try:
            serve_devices(address, on, threads or default_threads(), started=started)
        except Exception as error:  # raised again in the main thread
            failed.append(error)

    def started() -> None:
        typer.echo(f"{names} at {address}", err=True)
        typer.echo(
            f"next: lfm2gguf run MODEL.gguf --device rpc:{address}; Ctrl-C ends it", err=True
        )

    server = threading.Thread(target=work, daemon=True)
    server.start()
    server.join()
    raise failed[0]
