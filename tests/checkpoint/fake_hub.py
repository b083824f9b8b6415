"""A server that speaks as much of the Hugging Face Hub's API as fetching a repository takes.

https://huggingface.co/docs/hub/api: the repository's information, its tree, and its files
with ETag and byte ranges.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

REPOSITORY = "LiquidAI/LFM2-Small"
COMMIT = "c0ffee" + "0" * 34
INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?")
TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/.*)?")
PATHS = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Hub:
    """What the server holds, how it misbehaves, and what it was asked for."""

    folder: Path
    url: str = ""
    refusal: tuple[int, str] | None = None  # status and error code for everything
    cuts: dict[str, int] = field(default_factory=dict)  # file: times it is cut in the middle
    asked: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, first byte
    sent: dict[str, int] = field(default_factory=dict)  # file: bytes of it that were sent

    @property
    def fetched(self) -> set[str]:
        """The files whose contents were asked for."""
        found = (FILE.fullmatch(path) for method, path, _ in self.asked if method == "GET")
        return {match["path"] for match in found if match}


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """Serve a folder as :data:`REPOSITORY`, with one commit, the branch main and the tag v1."""
    hub = Hub(folder)

    class Bound(Handler):
        state = hub

    with serving(hub, Bound):
        yield hub


@contextlib.contextmanager
def serving(hub: Hub, handler: type[Handler]) -> Iterator[None]:
    """Answer requests while the context lasts; the hub learns its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Tell of some files, as paths-info does."""
        match = PATHS.fullmatch(unquote(self.path))
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if not match or match["repo"] != REPOSITORY:
            self.refuse(404, "EntryNotFound")
        else:
            wanted = asked.get("paths", [])
            self.json([entry for entry in self.tree() if entry["path"] in wanted])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        first = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        self.state.asked.append((self.command, path, int(first[1]) if first else 0))
        match = TREE.fullmatch(path) or FILE.fullmatch(path) or INFO.fullmatch(path)
        if self.state.refusal:
            self.refuse(*self.state.refusal)
        elif not match or match["repo"] != REPOSITORY:
            self.refuse(401, "RepoNotFound")
        elif (match["revision"] or "main") not in ("main", "v1", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif match.re is FILE:
            self.file(match["path"], first and (int(first[1]), first[2]))
        else:
            self.json(self.tree() if match.re is TREE else self.info())

    def info(self) -> object:
        names = [{"rfilename": entry["path"]} for entry in self.tree()]
        return {"_id": "1", "id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT,
                "private": False, "tags": [], "downloads": 0, "siblings": names}  # fmt: skip

    def tree(self) -> list[dict[str, object]]:
        files = (path for path in sorted(self.state.folder.rglob("*")) if path.is_file())
        return [
            {"type": "file", "path": path.relative_to(self.state.folder).as_posix(),
             "size": path.stat().st_size, "oid": etag(path)}
            for path in files
        ]  # fmt: skip

    def file(self, name: str, asked: tuple[int, str] | None) -> None:
        path = self.state.folder / name
        if not path.is_file():
            return self.refuse(404, "EntryNotFound")
        data = path.read_bytes()
        size, (start, end) = len(data), asked or (0, "")
        data = data[: int(end) + 1] if end else data
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{etag(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{size}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.state.cuts.get(name, 0) > 0:
            self.state.cuts[name] -= 1
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.close_connection = True
            return None
        self.state.sent[name] = self.state.sent.get(name, 0) + len(data) - start
        self.wfile.write(data[start:])
        return None

    def json(self, content: object) -> None:
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def refuse(self, status: int, code: str, content: object = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": f"refused: {code}"}
        self.answer(status, headers, json.dumps(content or {}).encode())

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
