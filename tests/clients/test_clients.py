"""Client libraries with their defaults, against ``lfm2gguf serve`` with the example model.

They live in environments of their own: ``tests/clients/environment.sh FOLDER`` makes them, and
``LFM2GGUF_CLIENTS=FOLDER pytest -m clients`` runs the suites. The example model calls
``get_time`` by itself and may never stop doing so: then the client's own limit ends the loop.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.running import CLIENTS, checks_of, run
from tests.making.models import tiny_gguf

pytestmark = [pytest.mark.clients, pytest.mark.weekly]
FOLDER = os.environ.get("LFM2GGUF_CLIENTS", "")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    if not FOLDER:
        pytest.skip("LFM2GGUF_CLIENTS names no folder that tests/clients/environment.sh has filled")
    command = [
        sys.executable, "-m", "lfm2gguf_cli.main", "serve", str(tiny_gguf()), "--port", "0",
        "--name", "tiny", "--api-key", "secret", "--context", "8192",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip().removesuffix("/v1")
        finally:
            server.terminate()


@functools.cache
def found(client: str, url: str) -> dict[str, Any]:
    return run(client, Path(FOLDER), url)


@pytest.mark.parametrize(("client", "check"), [(c, name) for c in CLIENTS for name in checks_of(c)])
def test_a_client(url: str, client: str, check: str) -> None:
    told = found(client, url)
    if "missing" in told:
        pytest.skip(f"{client} could not be installed: {told['missing']}")
    assert not told[check], told[check]
