"""A server that speaks OpenAI's protocol, measured at the client.

Requests are ``POST /v1/chat/completions`` with ``stream``; the clock starts when the request is
sent and notes when pieces of the answer arrive. Tokens are counted by the server's ``usage``;
where it sends none, by the file's tokenizer; without a file, chunks are counted, and the report
says so.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lfm2gguf.bench.cells import Cell
from lfm2gguf.bench.measurement import CHUNKS, TOKENIZER, USAGE, Measurement
from lfm2gguf.bench.processes import listener, resident
from lfm2gguf.bench.workloads import filler, workload
from lfm2gguf.errors import EndpointError, MissingDependencyError, OptionError

if TYPE_CHECKING:
    import httpx

    from lfm2gguf.bench.counter import Counter

CONNECT, READ = 10.0, 1800.0  # seconds; a long prefill on a processor is silent for minutes
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104 - an address to connect to
TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "tool_calls")
CALIBRATION = (64, 192)  # words of the two requests that tell how many tokens a word has
REFUSED = (400, 422)
IGNORE_EOS = "ignore_eos"


@dataclass
class _Stream:
    """What one answer has sent."""

    text: str = ""
    chunks: int = 0
    first: float = 0.0
    last: float = 0.0
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)

    def take(self, event: dict[str, Any], now: float) -> None:
        """Take an event of the stream; one without text may still bring the usage."""
        self.usage = event.get("usage") or self.usage
        self.timings = event.get("timings") or self.timings  # llama-server
        choices = event.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        parts = [delta[name] for name in TEXT_FIELDS if delta.get(name)]
        if not parts:
            return
        self.chunks += 1
        self.first, self.last = self.first or now, now
        self.text += "".join(part for part in parts if isinstance(part, str))

    @property
    def cached(self) -> int | None:
        """Tokens of the prompt that the server says it did not compute."""
        details = self.usage.get("prompt_tokens_details") or {}
        value = details.get("cached_tokens", self.timings.get("cache_n"))
        return value if isinstance(value, int) else None


class Endpoint:
    """Measures a server. Raises :class:`EndpointError` where it does not answer.

    Args:
        url: such as ``http://127.0.0.1:8080``, with or without ``/v1``.
        model: its name there; None: the first that the server lists.
        api_key: sent as a bearer token.
        pid: the server's process, for its memory; None: looked up by the port where it is local.
        counter: counts tokens where the server does not.
        prompt_cache: lets the server reuse earlier prompts.

    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        pid: int | None = None,
        counter: Counter | None = None,
        prompt_cache: bool = False,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError(f"{url!r} is not an address such as http://127.0.0.1:8080")
        self.is_local = parts.hostname in LOOPBACK
        self._client = _client(api_key)
        self.model = model or self._first_model()
        self._counter = counter
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self.pid = pid or (listener(port) if self.is_local else None)
        # The first form that the server takes is used for all requests.
        usage = {"stream_options": {"include_usage": True}}
        extras = {IGNORE_EOS: True, "repeat_penalty": 1.0, "cache_prompt": prompt_cache}
        self._forms: list[dict[str, Any]] = [usage | extras, usage, extras, {}]
        self._settled = False
        self._tokens_per_word: tuple[float, float] | None = None
        self.notes: dict[str, str] = {}

    def prepare(self, cell: Cell) -> None:
        """Settle what the server takes and, for depths, how many tokens a word has."""
        if not self._settled:
            self._settle()
        if cell.is_depth and self._tokens_per_word is None:
            self._calibrate()

    def measure(self, cell: Cell, numbers: Sequence[int]) -> list[Measurement]:
        """Send the requests of one run at once, each on a connection of its own."""
        prompts = [self._messages(cell, number) for number in numbers]
        measured = self._together([partial(self._ask, prompt, cell.output) for prompt in prompts])
        self._note(cell, measured)
        return measured

    def resident(self) -> int | None:
        """Bytes that the server's process holds."""
        return resident(self.pid) if self.pid else None

    def close(self) -> None:
        """Close the connections; the server drops what is under way."""
        self._client.close()

    def properties(self) -> dict[str, Any]:
        """Return what llama-server tells of itself under ``/props``; empty for other servers."""
        try:
            answer = self._client.get(f"{self.url}/props", timeout=CONNECT)
            found = answer.json() if answer.status_code == 200 else {}
        except (_httpx().HTTPError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        wanted = ("build_info", "model_path", "total_slots", "model_alias")
        return {key: found[key] for key in wanted if key in found}

    # requests

    def _messages(self, cell: Cell, number: int) -> list[dict[str, str]]:
        if not cell.is_depth:
            return workload(cell.name).messages(number)
        assert self._tokens_per_word is not None
        slope, constant = self._tokens_per_word
        words = max(1, round((cell.prompt - constant) / slope))
        return [{"role": "user", "content": filler(words, number)}]

    def _together(self, calls: Sequence[Callable[[], Measurement]]) -> list[Measurement]:
        if len(calls) == 1:
            return [calls[0]()]
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = [pool.submit(call) for call in calls]
            try:
                return [future.result() for future in futures]
            except KeyboardInterrupt:
                self.close()  # the threads' reads fail, and they end
                raise

    def _ask(self, messages: list[dict[str, str]], output: int) -> Measurement:
        body = {
            "model": self.model, "messages": messages, "max_tokens": output,
            "temperature": 0, "stream": True, **self._forms[0],
        }  # fmt: skip
        stream = _Stream()
        request = self._client.build_request("POST", f"{self.url}/v1/chat/completions", json=body)
        began = time.perf_counter()
        for event in self._events(request):
            stream.take(event, time.perf_counter() - began)
        total = time.perf_counter() - began
        if not stream.chunks:
            raise EndpointError(f"{self.url}: the answer is empty")
        return self._measurement(messages, stream, total)

    def _measurement(
        self, messages: list[dict[str, str]], stream: _Stream, total: float
    ) -> Measurement:
        prompt = stream.usage.get("prompt_tokens")
        output, counted = stream.usage.get("completion_tokens"), USAGE
        if output is None and self._counter is not None:
            prompt, output = self._counter.prompt(messages), self._counter.text(stream.text)
            counted = TOKENIZER
        elif output is None:
            output, counted = stream.chunks, CHUNKS
        # in one chunk, there is no time between tokens to be seen
        steps = output - 1 if stream.chunks > 1 else 0
        return Measurement(
            prompt, output, stream.first, stream.last, total, steps, stream.cached, counted
        )

    def _events(self, request: httpx.Request) -> Iterator[dict[str, Any]]:
        """Yield the events of one answer (server-sent events, ``data: {json}``)."""
        httpx = _httpx()
        try:
            with contextlib.closing(self._client.send(request, stream=True)) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise _refusal(self.url, answer.status_code, answer.text)
                for line in _lines(answer.iter_bytes()):
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    if line.startswith(b"data:") and data:
                        yield self._event(data)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise EndpointError(_unreachable(self.url, error)) from error
        except RuntimeError as error:  # httpx: the client was closed by an interrupt
            raise EndpointError(f"{self.url}: {error}") from error

    def _event(self, data: bytes) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except ValueError as error:
            raise EndpointError(f"{self.url}: the stream is not JSON: {_shown(data)}") from error
        if not isinstance(event, dict):
            raise EndpointError(f"{self.url}: the stream holds {_shown(data)}")
        if event.get("error"):
            raise EndpointError(f"{self.url}: {_message(event)}")
        return event

    def _first_model(self) -> str:
        try:
            answer = self._client.get(f"{self.url}/v1/models", timeout=CONNECT)
            if answer.status_code in (401, 403):
                raise _refusal(self.url, answer.status_code, answer.text)
            return str(answer.json()["data"][0]["id"])
        except _httpx().HTTPError as error:
            raise EndpointError(_unreachable(self.url, error)) from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise EndpointError(
                f"{self.url} lists no models under /v1/models: name one with --model"
            ) from error

    # what the server takes, and how it counts

    def _settle(self) -> None:
        """Find the most that the server takes: unknown fields are refused by some."""
        messages = [{"role": "user", "content": "Hello"}]
        while True:
            try:
                self._ask(messages, 2)
                break
            except _RefusedError:
                if len(self._forms) == 1:
                    raise
                del self._forms[0]
        self._settled = True
        if IGNORE_EOS not in self._forms[0]:
            self.notes["extras"] = (
                "the server refuses ignore_eos, repeat_penalty and cache_prompt: answers may end "
                "early, and its own defaults apply"
            )

    def _calibrate(self) -> None:
        """Solve tokens = slope * words + constant from two short prompts."""
        counts = [
            self._ask([{"role": "user", "content": filler(words, words)}], 1).prompt_tokens
            for words in CALIBRATION
        ]
        low, high = counts
        if not low or not high or high <= low:
            raise EndpointError(
                "the server does not count tokens: give the model's file, MODEL.gguf, beside "
                "--endpoint"
            )
        slope = (high - low) / (CALIBRATION[1] - CALIBRATION[0])
        self._tokens_per_word = slope, low - slope * CALIBRATION[0]

    def _note(self, cell: Cell, measured: Sequence[Measurement]) -> None:
        """Remember what a reader of the figures must know."""
        outputs = [m.output_tokens for m in measured]
        if min(outputs) < cell.output and measured[0].counted != CHUNKS:
            self.notes["length"] = (
                "answers ended before the wanted length: the server does not honour ignore_eos, "
                "or its context is full"
            )
        if any(m.steps == 0 for m in measured) and cell.output > 1:
            self.notes["stream"] = "answers came in one piece: there is no decode speed to be seen"
        if any(m.counted == CHUNKS for m in measured):
            self.notes["chunks"] = (
                "the server sends no usage: output tokens are chunks of the stream, and prompts "
                "are not counted; give MODEL.gguf beside --endpoint to count with its tokenizer"
            )


class _RefusedError(EndpointError):
    """The server took a request for wrong."""


def _refusal(url: str, status: int, text: str) -> EndpointError:
    try:
        said = _message(json.loads(text))
    except ValueError:
        said = " ".join(text.split())[:200] or "no reason given"
    kind = _RefusedError if status in REFUSED else EndpointError
    return kind(f"{url} answers with status {status}: {said}")


def _lines(data: Iterable[bytes]) -> Iterator[bytes]:
    """Split a stream at its newlines: httpx's own iter_lines takes three times as long."""
    rest = b""
    for part in data:
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
    yield rest


def _shown(data: bytes) -> str:
    return repr(data[:80].decode("utf-8", "replace"))


def _message(data: Any) -> str:
    error = data.get("error", data) if isinstance(data, dict) else data
    said = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(said).split())[:300]


def _unreachable(url: str, error: Exception) -> str:
    said = str(error) or type(error).__name__
    return f"{url} cannot be reached, or broke off: {said}"


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingDependencyError(
            'an endpoint needs httpx: pip install "lfm2gguf[bench]"'
        ) from error
    return httpx


def _client(api_key: str | None) -> Any:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    httpx = _httpx()
    timeout = httpx.Timeout(READ, connect=CONNECT)
    limits = httpx.Limits(max_connections=None)
    return httpx.Client(headers=headers, timeout=timeout, limits=limits)
