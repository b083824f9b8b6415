"""A server that speaks OpenAI's protocol, well or badly, over a real socket."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Behaviour:
    """How the server answers; ``asked`` collects the bodies of the requests."""

    usage: bool = True
    refused: tuple[str, ...] = ()  # fields it answers with status 400
    ends_after: int | None = None  # tokens, whatever max_tokens says
    in_one_piece: bool = False
    text_field: str = "content"
    tokens_per_chunk: int = 1
    first: float = 0.0  # seconds before the first token, and between tokens
    between: float = 0.0
    together: int = 1  # requests that are under way before one of them is answered
    models: Any = field(default_factory=lambda: {"data": [{"id": "fake"}]})
    key: str | None = None
    context: int = 10_000
    cached: int | None = None
    raw: bytes | None = None  # sent instead of an answer
    status: int = 200
    asked: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _changed: Any = field(default_factory=threading.Condition)

    def begin(self, count: int) -> None:
        """Count a request in (1) or out (-1)."""
        with self._changed:
            self._now += count
            self.most_at_once = max(self.most_at_once, self._now)
            self._changed.notify_all()

    def wait_for_others(self) -> None:
        """Wait until there have been ``together``; a minute, so that too few are seen."""
        with self._changed:
            self._changed.wait_for(lambda: self.most_at_once >= self.together, 60)

    @property
    def contents(self) -> list[str]:
        """The first message of each request."""
        return [body["messages"][0]["content"] for body in self.asked]


@contextlib.contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve in a thread; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(behaviour))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def handler(behaviour: Behaviour) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            found = self.path == "/v1/models" and behaviour.models is not None
            self.reply(200 if found else 404, behaviour.models if found else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = behaviour.key or ""
            login = f"Basic {base64.b64encode(key.encode()).decode()}"  # of an address
            if key and self.headers["Authorization"] not in (f"Bearer {key}", login):
                self.reply(401, {"error": {"message": "wrong key"}})
                return
            for name in behaviour.refused:
                if name in body:
                    self.reply(400, {"error": {"message": f"unknown field {name}"}})
                    return
            if behaviour.raw is not None:
                self.send_response(behaviour.status)
                self.end_headers()
                self.wfile.write(behaviour.raw)
                return
            words = sum(len(m["content"].split()) for m in body["messages"])
            if words > behaviour.context:
                self.reply(400, {"error": {"message": "the prompt exceeds the context"}})
                return
            behaviour.asked.append(body)
            behaviour.begin(1)
            try:
                self.answer(body, words)
            finally:
                behaviour.begin(-1)

        def reply(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def answer(self, body: dict[str, Any], words: int) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            count = min(body["max_tokens"], behaviour.ends_after or body["max_tokens"])
            self.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            behaviour.wait_for_others()
            time.sleep(behaviour.first)
            step = count if behaviour.in_one_piece else behaviour.tokens_per_chunk
            for start in range(0, count, step):
                if start:
                    time.sleep(behaviour.between)
                text = "word " * min(step, count - start)
                self.event({"choices": [{"delta": {behaviour.text_field: text}}]})
            if behaviour.usage and "stream_options" in body:
                usage: dict[str, Any] = {"prompt_tokens": words + 5, "completion_tokens": count}
                if behaviour.cached is not None:
                    usage["prompt_tokens_details"] = {"cached_tokens": behaviour.cached}
                self.event({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")

        def event(self, value: Any) -> None:
            self.wfile.write(f": a comment\ndata: {json.dumps(value)}\n\n".encode())
            self.wfile.flush()

    return Handler
