"""Single requests that are meant to stop a server, each to a fresh one, and SIGTERM under each.

    python tests/benchmarks/attacks.py MODEL.gguf [--only NAME ...]

For each attack: what it is answered, how long a plain request beside it and one after it take, how
busy the server still is when the attacker has hung up, and how long SIGTERM takes to end it while
the attack runs again. Prints JSON; exit code 1 where a plain request is not answered, the server
stays busy, or SIGTERM does not end it within the drain time. Linux; loopback only.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from tests.making.serving import Process, served

PLAIN: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
PATIENCE, DRAIN, GRACE = 25.0, 3.0, 4.0  # seconds
Body = dict[str, Any]


def _schema(schema: Any) -> Body:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return {"response_format": form}


def _tree(depth: int) -> Any:
    return {"anyOf": [_tree(depth - 1)] * 2} if depth else {"type": "null"}


def _text(pattern: str) -> Body:
    return _schema({"type": "string", "pattern": pattern})


def _objects(count: int) -> Any:
    return {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(count)}}


DEFINITIONS = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 8} for i in range(30)}
LOOP = {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}
ATTACKS: dict[str, Body] = {
    "a bracket that never closes": _text("^[]]$"),
    "a repetition of what may be nothing": _text("^(a?){1999}$"),
    "alternatives that overlap": _text("^((a|b|ab)?(a|b|ab)?(a|b|ab)?){60}$"),
    "2,000 items of short texts": _schema(
        {"type": "array", "maxItems": 2000, "items": {"type": "string", "maxLength": 9}}
    ),
    "an enum of 20,000": _schema({"enum": [f"v{i}" for i in range(20_000)]}),
    "300 optional properties": _schema(_objects(300)),
    "a definition of itself": _schema({"$defs": LOOP, "$ref": "#/$defs/a"}),
    "definitions that double": _schema(
        {"$defs": DEFINITIONS | {"d30": {"type": "null"}}, "$ref": "#/$defs/d0"}
    ),
    "a tree of 16,384 leaves": _schema(_tree(14)),
    "an integer of 4,000 digits": _schema(
        {"type": "integer", "minimum": 0, "maximum": 10**4000}
    ),
    "200 tools of 30 arguments": {
        "tool_choice": "required",
        "tools": [
            {"type": "function", "function": {"name": f"f{i}", "parameters": _objects(30)}}
            for i in range(200)
        ],
    },
    "a megabyte of text, 64 times": {
        "messages": [{"role": "user", "content": "a " * 500_000}], "n": 64,
    },
}  # fmt: skip


def ask(server: Process, body: Body, patience: float) -> tuple[str, float]:
    """Return what a request is answered (a status, or what failed), and after how long."""
    began = time.monotonic()
    try:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=patience)
        said = str(answer.status_code)
        if answer.status_code != 200:
            said += " " + str(answer.json()["error"]["message"])[:90]
    except httpx.HTTPError as error:
        said = type(error).__name__
    return said, round(time.monotonic() - began, 2)


def begun(server: Process, attack: Body, patience: float) -> tuple[threading.Thread, list[Any]]:
    """Send an attack from a thread; its answer goes into the list."""
    box: list[Any] = []
    thread = threading.Thread(
        target=lambda: box.append(ask(server, {**PLAIN, **attack}, patience)), daemon=True
    )
    thread.start()
    return thread, box


def attacked(model: Path, attack: Body) -> dict[str, Any]:
    """Return what an attack does to a server."""
    options = ("--threads", "1", "--context", "2048", "--drain-seconds", str(DRAIN))
    with served(model, *options) as server:
        ask(server, PLAIN, PATIENCE)
        thread, box = begun(server, attack, PATIENCE)
        time.sleep(1)
        beside = ask(server, PLAIN, 10)
        thread.join()
        time.sleep(2)  # the attacker has hung up
        before, began = server.use().processor, time.monotonic()
        time.sleep(2)
        busy = (server.use().processor - before) / (time.monotonic() - began)
        after = ask(server, PLAIN, 10)
        found = {"answer": box[0], "beside": beside, "after": after, "busy": round(busy, 2)}
        found |= {"rss_mib": server.use().rss >> 20, "alive": server.alive}
        thread, _ = begun(server, attack, PATIENCE)
        time.sleep(0.5)
        code, seconds = server.terminate(PATIENCE)
        thread.join()
    plain = beside[0] == after[0] == "200"
    held = plain and found["alive"] and busy < 0.2 and code is not None
    return {**found, "end": code, "end_seconds": round(seconds, 2),
            "held": held and seconds <= DRAIN + GRACE}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", nargs="*", default=ATTACKS, metavar="NAME")
    given = parser.parse_args()
    found = {}
    for name in given.only:
        found[name] = attacked(given.model, ATTACKS[name])
        print(json.dumps({name: found[name]}), flush=True)
    sys.exit(not all(attack["held"] for attack in found.values()))


if __name__ == "__main__":
    main()
