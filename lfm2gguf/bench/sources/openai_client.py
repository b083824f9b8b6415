"""OpenAI's protocol on the wire: requests, server-sent events, and how failures are said."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lfm2gguf.errors import EndpointError, MissingDependencyError, OptionError
from lfm2gguf.install import install_command
from lfm2gguf.json_text import parse_json

if TYPE_CHECKING:
    import httpx

CONNECT, READ = 10.0, 1800.0  # seconds; a long prefill on a processor is silent for minutes
TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "tool_calls")
REFUSED = (400, 422)


class RefusedError(EndpointError):
    """The server rejected a request."""


@dataclass
class Answer:
    """What one answer has sent, and when, in seconds since the request."""

    text: str = ""
    chunks: int = 0
    first: float = 0.0
    last: float = 0.0
    total: float = 0.0
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


def host_and_port(url: str) -> tuple[str, int]:
    """Return a server's name or address, and its port.

    Raises:
        OptionError: it is no address of one.
    """
    httpx = _httpx()
    try:
        parsed = httpx.URL(url)
        port = parsed.port or {"http": 80, "https": 443}[parsed.scheme]
    except (ValueError, KeyError, httpx.InvalidURL):
        port = 0
    if not 0 < port < 1 << 16 or not parsed.host:
        raise OptionError(
            f"endpoint (--endpoint): {without_login(url)!r} is not an address; give one such as "
            "http://127.0.0.1:8080"
        )
    return str(parsed.host), port


def without_login(url: str) -> str:
    """Return an address as it may be shown: without a name and a password before the host."""
    return re.sub(r"^([A-Za-z]+://)[^/?#]*@", r"\1", url)


class Wire:
    """Connections to one server; the methods raise :class:`EndpointError` where it fails."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._asked, self.url, self.client = url, without_login(url), _client(api_key)

    def ask(self, body: dict[str, Any]) -> Answer:
        """Send a chat request and read its answer to the end."""
        url = f"{self._asked}/v1/chat/completions"
        request = self.client.build_request("POST", url, json=body)
        answer = Answer()
        began = time.perf_counter()
        for event in self._events(request):
            answer.take(event, time.perf_counter() - began)
        answer.total = time.perf_counter() - began
        if not answer.chunks:
            raise EndpointError(f"{self.url}: the answer is empty")
        return answer

    def get(self, path: str) -> Any:
        """Return the JSON under a path; None where there is none."""
        try:
            answer = self.client.get(self._asked + path, timeout=CONNECT)
        except _httpx().HTTPError as error:
            raise EndpointError(_unreachable(self.url, error)) from error
        if answer.status_code in (401, 403):
            raise _refusal(self.url, answer.status_code, answer.text)
        try:
            return answer.json() if answer.status_code == 200 else None
        except ValueError:
            return None

    def _events(self, request: httpx.Request) -> Iterator[dict[str, Any]]:
        """Yield the events of one answer (server-sent events, ``data: {json}``)."""
        httpx = _httpx()
        try:
            with contextlib.closing(self.client.send(request, stream=True)) as answer:
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
            event = parse_json(data)
        except ValueError as error:
            raise EndpointError(f"{self.url}: the stream is not JSON: {_shown(data)}") from error
        if not isinstance(event, dict):
            raise EndpointError(f"{self.url}: the stream holds {_shown(data)}")
        if event.get("error"):
            raise EndpointError(f"{self.url}: {_message(event)}")
        return event


def _refusal(url: str, status: int, text: str) -> EndpointError:
    try:
        said = _message(parse_json(text))
    except ValueError:
        said = " ".join(text.split())[:200] or "no reason given"
    kind = RefusedError if status in REFUSED else EndpointError
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
            f"an endpoint needs httpx: {install_command('bench')}"
        ) from error
    return httpx


def _client(api_key: str | None) -> Any:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    httpx = _httpx()
    timeout = httpx.Timeout(READ, connect=CONNECT)
    limits = httpx.Limits(max_connections=None)
    return httpx.Client(headers=headers, timeout=timeout, limits=limits)
