"""The example model behind a real socket."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="lfm2gguf[serve] is not installed")

import openai
import uvicorn

from lfm2gguf import Runner, convert
from lfm2gguf.llamacpp import Floats, Sampler
from lfm2gguf.server import Limits, create_app
from lfm2gguf.server.serving import listen
from tests.making.models import tiny_gguf
from tests.making.multimodal import IMAGE_CASE, image, make_multimodal, png
from tests.runner.test_embeddings import POOLED, opened


@contextlib.contextmanager
def serving(runner: Runner, **options: Any) -> Iterator[str]:
    """Serve in a thread; the address."""
    app = create_app(runner, name="tiny", **options)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    with listen("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join()


def read(usage: dict[str, int]) -> int:
    """Tokens of a prompt: Anthropic's ``input_tokens`` are without those that were in memory."""
    return usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    with Runner(tiny_gguf(), device="cpu", threads=1, context=2048) as lfm:
        yield lfm


@pytest.fixture(scope="session")
def url(runner: Runner) -> Iterator[str]:
    with serving(runner, limits=Limits(body_bytes=1 << 20, queue=200)) as address:
        yield address


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each token takes two milliseconds at least, on every machine; those that are drawn."""
    drawn: list[int] = []

    class Slow(Sampler):
        def sample(self, logits: Floats) -> int:
            time.sleep(0.002)
            drawn.append(super().sample(logits))
            return drawn[-1]

    monkeypatch.setattr("lfm2gguf.runner.engine.scheduler.Sampler", Slow)
    return drawn


def wait_until_idle(runner: Runner, seconds: float = 30) -> None:
    """No request runs or waits."""
    end = time.monotonic() + seconds
    while (load := runner.load).running or load.waiting:
        assert time.monotonic() < end, load
        time.sleep(0.01)


@pytest.fixture
def embedding_model(tmp_path: Path) -> Iterator[Runner]:
    """A random LFM2.5-Embedding."""
    with opened(POOLED, tmp_path) as lfm:
        yield lfm


@pytest.fixture
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A random LFM2-VL with its projector."""
    source = make_multimodal(IMAGE_CASE, tmp_path_factory.mktemp("vl") / "LFM2-VL-Run")
    text = convert(source, source, "F32", jobs=1).files[0].path
    projector = convert(source, source, "F32", projector=True, jobs=1).files[0].path
    with Runner(text, mmproj=projector, context=512, threads=1) as lfm:
        yield lfm


@pytest.fixture
def picture() -> bytes:
    return png(image())
