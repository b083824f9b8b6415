"""A Hub that takes uploads: who is there, repositories, Git LFS, commits.

As huggingface_hub asks for it (``hf_api.py``, ``_commit_api.py``, ``lfs.py``), with Git LFS's
batch API (https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.checkpoint.fake_hub import Handler, Hub, serving

TOKEN = "hf_of_the_tests"
COMMIT = "beef" * 10
LFS = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit)/main")
STORE = re.compile(r"/store/(?P<oid>[0-9a-f]{64})")


@dataclass
class UploadHub(Hub):
    """What was made and uploaded, and how the Hub misbehaves."""

    repositories: dict[str, dict[str, object]] = field(default_factory=dict)
    store: dict[str, bytes] = field(default_factory=dict)  # of large files, by SHA-256
    uploaded: list[str] = field(default_factory=list)  # their SHA-256, each time they are sent
    commits: list[dict[str, bytes]] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)  # that were looked through
    broken_after: int | None = None  # large files that are taken before everything fails
    may_write: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[UploadHub]:
    """Serve a folder as a repository, and take uploads to others."""
    hub = UploadHub(folder)

    class Bound(_Handler):
        state = hub

    with serving(hub, Bound):
        yield hub


class _Handler(Handler):
    state: UploadHub

    def do_GET(self) -> None:  # noqa: N802
        path = self.path.partition("?")[0]
        repository = path.removeprefix("/api/models/").removesuffix("/revision/main")
        if (made := self.state.repositories.get(repository)) is not None:
            private = made.get("visibility") == "private"
            return self.json({"_id": "1", "id": made["name"], "private": private, "tags": []})
        if path != "/api/whoami-v2":
            return super().do_GET()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized")
        return self.json({"name": "me", "type": "user", "orgs": []})

    def do_POST(self) -> None:  # noqa: N802
        path, body = self.path.partition("?")[0], self.body()
        self.state.asked.append((self.command, path, 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized")
        if not self.state.may_write:
            return self.refuse(403, "Forbidden")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            self.state.cards.append(json.loads(body)["content"])
            return self.json({"errors": [], "warnings": []})
        if LFS.fullmatch(path):
            return self.batch(json.loads(body)["objects"])
        match = API.fullmatch(path)
        if not match or match["repo"] not in self.state.repositories:
            return self.refuse(404, "RepoNotFound")
        if match["what"] == "preupload":
            return self.preupload(json.loads(body)["files"])
        return self.commit(match["repo"], [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:  # noqa: N802
        match = STORE.fullmatch(self.path)
        data = self.body()
        with self.state.lock:  # several come at once
            taken, most = self.state.uploaded, self.state.broken_after
            if not match or (most is not None and len(taken) >= most):
                return self.refuse(400, "Broken")
            assert hashlib.sha256(data).hexdigest() == match["oid"]
            taken.append(match["oid"])
            self.state.store[match["oid"]] = data
        return self.json({})

    def create(self, asked: dict[str, object]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.state.repositories:
            return self.refuse(409, "Exists", {"url": f"{self.state.url}/{name}"})
        private = "private" if asked.get("private") else "public"  # before huggingface-hub 1.0
        self.state.repositories[name] = {"visibility": private} | asked
        return self.json({"url": f"{self.state.url}/{name}", "id": "1"})

    def preupload(self, files: list[dict[str, object]]) -> None:
        large = (".gguf",)
        self.json({"files": [
            {"path": file["path"], "shouldIgnore": False,
             "uploadMode": "lfs" if str(file["path"]).endswith(large) else "regular"}
            for file in files
        ]})  # fmt: skip

    def batch(self, objects: list[dict[str, object]]) -> None:
        answers = []
        for asked in objects:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.state.store:
                href = f"{self.state.url}/store/{asked['oid']}"
                answer["actions"] = {"upload": {"href": href, "header": {}}}
            answers.append(answer)
        self.json({"transfer": "basic", "objects": answers})

    def commit(self, repository: str, lines: list[dict[str, dict[str, str]]]) -> None:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.state.store[value["oid"]]
        self.state.commits.append(files)
        self.json({"success": True, "commitOid": COMMIT, "hookOutput": "", "pullRequestUrl": None,
                   "commitUrl": f"{self.state.url}/{repository}/commit/{COMMIT}"})  # fmt: skip

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)
