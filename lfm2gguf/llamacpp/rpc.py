"""Devices of other machines, by llama.cpp's RPC backend: a model that is larger than one machine.

A server offers its devices at an address, and the layers are spread over them. It serves one client
at a time. llama.cpp ends the whole process where a server cannot be reached, speaks another version
or goes away (``GGML_ABORT`` in ggml/src/ggml-rpc/ggml-rpc.cpp, commit 0c1e57098), so each server is
asked for its version here before C code meets it; nothing helps against one that goes away later.
"""

from __future__ import annotations

import ctypes
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

from lfm2gguf.errors import DeviceError, OptionError
from lfm2gguf.llamacpp.availability import missing_rpc
from lfm2gguf.llamacpp.device import Device, device_of, libggml

PREFIX = "rpc:"
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+):(?P<port>\d{1,5})")  # no IPv6: ggml splits at ":"
_MOST_SERVERS = 16  # GGML_RPC_MAX_SERVERS (ggml/include/ggml-rpc.h)
_MAJOR, _MINOR = 7, 0  # RPC_PROTO_MAJOR_VERSION and _MINOR_ of 0c1e57098
_HELLO, _CAPS = 14, 24  # RPC_CMD_HELLO, which stays; RPC_CONN_CAPS_SIZE
_PATIENCE = 5.0  # seconds


def addresses(wanted: str) -> list[str]:
    """Return the servers of ``rpc:HOST:PORT,HOST:PORT``.

    Raises:
        OptionError: it is not of that form.
    """
    found = wanted[len(PREFIX) :].split(",")
    matches = [_ADDRESS.fullmatch(address) for address in found]
    if not all(match and 0 < int(match["port"]) < 1 << 16 for match in matches):
        raise OptionError(
            f"device (--device) is {wanted!r}: it must be rpc:HOST:PORT, or several with commas "
            "between them (rpc:10.0.0.2:50052,10.0.0.3:50052)"
        )
    if len(set(found)) < len(found) or len(found) > _MOST_SERVERS:
        raise OptionError(
            f"device (--device) is {wanted!r}: each server once, and {_MOST_SERVERS} at most"
        )
    return found


def remote_devices(wanted: str) -> list[Device]:
    """Return the devices of the servers, in their order.

    Raises:
        OptionError: ``wanted`` is not a list of addresses.
        DeviceError: the build lacks RPC, or a server does not answer as it should.
    """
    servers = addresses(wanted)
    add = _function(b"ggml_backend_rpc_add_server", ctypes.c_void_p, [ctypes.c_char_p])
    if add is None:
        raise DeviceError(missing_rpc())
    found: list[Device] = []
    ggml = libggml()
    for server in servers:
        check_server(server)
        registry = add(server.encode())
        if not registry:
            raise DeviceError(f"{PREFIX}{server}: the server offers no device")
        count = ggml.ggml_backend_reg_dev_count(registry)
        found += [device_of(ggml.ggml_backend_reg_dev_get(registry, i)) for i in range(count)]
    return found


def check_server(address: str) -> None:
    """Say hello to a server as llama.cpp's client would.

    Raises:
        DeviceError: it cannot be reached, is busy, is none, or speaks another version.
    """
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), _PATIENCE) as connection:
            hello = bytes([_HELLO]) + _CAPS.to_bytes(8, "little") + bytes(_CAPS)
            connection.sendall(hello)
            with connection.makefile("rb") as answers:
                answer = answers.read(8 + 4 + _CAPS)
    except TimeoutError as error:
        raise DeviceError(
            f"{PREFIX}{address}: no answer within {_PATIENCE:.0f} s; the server may be serving "
            "another client: it takes one at a time"
        ) from error
    except OSError as error:
        raise DeviceError(
            f"{PREFIX}{address}: cannot be reached ({error.strerror or error}); start a server "
            "there: lfm2gguf rpc-server, or llama.cpp's ggml-rpc-server"
        ) from error
    if len(answer) < 8 + 4 + _CAPS or int.from_bytes(answer[:8], "little") != 4 + _CAPS:
        raise DeviceError(f"{PREFIX}{address}: what answers there is no RPC server of llama.cpp")
    major, minor = answer[8], answer[9]
    if major != _MAJOR or minor > _MINOR:
        raise DeviceError(
            f"{PREFIX}{address}: the server speaks version {major}.{minor} of RPC, and this build "
            f"{_MAJOR}.{_MINOR}: use the same llama.cpp on both machines"
        )


def serve_devices(
    address: str, devices: Sequence[Device], threads: int, started: Callable[[], None]
) -> None:
    """Offer devices at an address, for as long as the process lives.

    Whoever reaches it can use the machine's memory: never in an open network.

    Raises:
        OptionError: the address is none.
        DeviceError: the build lacks RPC, or the address cannot be had.
    """
    (address,) = addresses(PREFIX + address)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    start = _function(
        b"ggml_backend_rpc_start_server",
        None,
        [ctypes.c_char_p, ctypes.c_char_p, size, size, ctypes.POINTER(pointer)],
    )
    if start is None:
        raise DeviceError(missing_rpc())
    _check_free(address)
    started()
    handles = (pointer * len(devices))(*(device.handle for device in devices))
    start(address.encode(), None, threads, len(devices), handles)
    raise DeviceError(f"{address}: llama.cpp cannot listen there")


def _check_free(address: str) -> None:
    """Bind to the address for a moment: C code says nothing of why it cannot."""
    host, port = address.split(":")
    try:
        with socket.create_server((host, int(port)), family=socket.AF_INET):
            pass
    except OSError as error:
        raise DeviceError(
            f"{address}: cannot listen there ({error.strerror or error}); give another port or host"
        ) from error


def _function(name: bytes, result: Any, arguments: list[Any]) -> Any:
    """Return a function of the RPC backend by its name; None where the build lacks it."""
    ggml = libggml()
    registry = ggml.ggml_backend_reg_by_name(b"RPC")
    address = registry and ggml.ggml_backend_reg_get_proc_address(registry, name)
    return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None
