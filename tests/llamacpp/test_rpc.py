"""Models over several machines: addresses, servers that are none, and two real ones."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfm2gguf.errors import DeviceError, OptionError
from lfm2gguf.llamacpp import backends, choose
from lfm2gguf.llamacpp.rpc import addresses, check_server
from lfm2gguf.runner import Runner

BUILT = "RPC" in backends()
HELLO = 1 + 8 + 24  # bytes of a client's first message


def test_addresses() -> None:
    assert addresses("rpc:10.0.0.2:50052,node-3.lan:1") == ["10.0.0.2:50052", "node-3.lan:1"]


@pytest.mark.parametrize(
    "wanted",
    ["rpc:", "rpc:host", "rpc:host:", "rpc::1", "rpc:h:0", "rpc:h:65536", "rpc:h:1,", "rpc:[::1]:5",
     "rpc:h:1,h:1", "rpc:" + ",".join(f"h:{port}" for port in range(1, 18)), "rpc:a b:1"],
)  # fmt: skip
def test_what_is_no_address(wanted: str) -> None:
    with pytest.raises(OptionError, match=r"rpc:HOST:PORT|each server once"):
        choose(wanted)


@pytest.mark.skipif(BUILT, reason="this build of llama-cpp-python has RPC")
def test_a_build_without_it_says_so() -> None:
    with pytest.raises(DeviceError, match="-DGGML_RPC=on"):
        choose("rpc:127.0.0.1:50052")


@contextlib.contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """Yield the address of a server that says something to one client; None: it stays silent."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            with contextlib.suppress(OSError):
                client, _ = server.accept()
                with client:
                    client.recv(HELLO, socket.MSG_WAITALL)
                    if answer is None:
                        over.wait()
                    else:
                        client.sendall(answer)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
        thread.join(2)


def hello(major: int, minor: int) -> bytes:
    return (28).to_bytes(8, "little") + bytes([major, minor, 0, 0]) + bytes(24)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n" * 3, "no RPC server"),
        (b"", "no RPC server"),
        (hello(6, 0), "speaks version 6.0"),
        (hello(7, 1), "speaks version 7.1"),
        (None, "one at a time"),
    ],
)
def test_servers_at_which_llama_cpp_would_end_the_process(
    answer: bytes | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfm2gguf.llamacpp.rpc._PATIENCE", 0.2 if answer is None else 60)
    with answering(answer) as address, pytest.raises(DeviceError, match=problem):
        check_server(address)


def test_a_server_that_is_not_there() -> None:
    with answering(hello(7, 0)) as address:
        check_server(address)
    with pytest.raises(DeviceError, match=r"cannot be reached .*rpc-server"):
        check_server(address)


@pytest.mark.slow
@pytest.mark.skipif(
    not BUILT, reason='llama-cpp-python is built without RPC (CMAKE_ARGS="-DGGML_RPC=on")'
)
def test_two_servers_answer_as_the_cpu(example_files: dict[str, Path]) -> None:
    from tests.gpu.check import check

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(rpc_server()) for _ in range(2)]
        wanted = "rpc:" + ",".join(servers)
        devices = choose(wanted)
        assert [device.description for device in devices] == servers
        for path in example_files.values():
            assert check(path, wanted).problems == []
        with Runner(example_files["Q8_0"], device=wanted, threads=1) as lfm:
            assert lfm.device.backend == "RPC"
            assert lfm.device.device == ", ".join(servers)
            assert lfm.device.layers_offloaded == lfm.device.layers


@contextlib.contextmanager
def rpc_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lfm2gguf_cli.main", "rpc-server", "--port", str(port)]
    options = ["--device", "cpu", "--threads", "1"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"127.0.0.1:{port}"
    try:
        for _ in itertools.repeat(None, 100):
            with contextlib.suppress(DeviceError):
                check_server(address)
                break
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()
