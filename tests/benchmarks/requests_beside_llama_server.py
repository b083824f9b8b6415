"""Send a table of requests to ``lfm2gguf serve`` and to llama-server: which answers as well.

    python -m tests.benchmarks.requests_beside_llama_server MODEL.gguf --programs build/bin

Both serve the same file with the same context and places. An answer is *right* (2) where status
and content are what :mod:`tests.benchmarks.request_table` wants, *accepted* (1) where the status is
right and the setting had no effect, else *wrong* (0). Prints a table by group in Markdown, then
each request that ours answers less well, with what both said; ``--json`` writes all of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.benchmarks.request_table import Case, table
from tests.benchmarks.serve_beside_llama_server import free_port, running

CONTEXT, PLACES = 4096, 2


@dataclass(frozen=True)
class Outcome:
    """How a server answered: 2, 1 or 0, the status, and the beginning of what it said."""

    score: int
    status: int
    said: str


def outcome(url: str, case: Case) -> Outcome:
    """Send a request and judge the answer."""
    headers = {"Content-Type": "application/json", **case.headers}
    if case.raw is None and case.body is None:
        del headers["Content-Type"]
    content = case.raw if case.raw is not None else None
    if content is None and case.body is not None:
        content = json.dumps(case.body).encode()
    try:
        answer = httpx.request(
            case.method, url + case.path, content=content, headers=headers, timeout=60
        )
    except httpx.HTTPError as error:
        return Outcome(0, 0, repr(error))
    return Outcome(score(case, answer), answer.status_code, " ".join(answer.text.split())[:200])


def score(case: Case, answer: httpx.Response) -> int:
    """Return 2 for right, 1 for accepted without effect, 0 for wrong."""
    refused = 400 <= answer.status_code < 500 or answer.status_code == 501
    if refused or not answer.is_success:
        return 2 if refused and case.want in ("refuse", "honest") else 0
    if case.want == "refuse":
        return 0
    if case.check is None:
        return 2 if whole(answer) else 0
    try:
        return 2 if case.check(answer.json()) else 1
    except (KeyError, ValueError, TypeError, AttributeError):
        return 1


def whole(answer: httpx.Response) -> bool:
    """Say whether an answer came to its end: a stream may end with an error."""
    if "text/event-stream" not in answer.headers.get("content-type", ""):
        return True
    last = answer.text.rstrip().rpartition("\n")[2]  # /completion ends with the whole
    return '"error"' not in answer.text and (last == "data: [DONE]" or '"stop_type"' in last)


def main() -> None:
    """Send the table to both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--programs", type=Path, required=True, help="where llama-server is")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cases = table()
    found: dict[str, list[Outcome]] = {}
    for name, command in commands(given.model, given.programs).items():
        port = free_port()
        with running(command, port) as url:
            found[name] = [outcome(url, case) for case in cases]
    rows = list(zip(cases, found["ours"], found["theirs"], strict=True))
    print(report(rows))
    if given.json:
        listed = [{"group": c.group, "name": c.name, "want": c.want, "ours": asdict(a),
                   "theirs": asdict(b)} for c, a, b in rows]  # fmt: skip
        given.json.write_text(json.dumps(listed, indent=1), encoding="utf-8")


def commands(model: Path, programs: Path) -> dict[str, list[str]]:
    ours = [sys.executable, "-m", "lfm2gguf_cli.main", "serve", str(model), "--device", "cpu",
            "--threads", "1", "--context", str(CONTEXT), "--parallel", str(PLACES)]  # fmt: skip
    theirs = [
        str(programs / "llama-server"),
        "-m",
        str(model),
        "-t",
        "1",
        "-c",
        str(CONTEXT),
        "-np",
        str(PLACES),
        "--kv-unified",
        "--jinja",
        "--metrics",
        "--slots",
        "--no-ui",
    ]
    return {"ours": ours, "theirs": theirs}


Row = tuple[Case, Outcome, Outcome]


def report(rows: list[Row]) -> str:
    """Return the table by group, and what ours answers less well."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[0].group].append(row)
    lines = [
        "| requests | | ours right | llama-server right | ours as good |",
        "|---|---|---|---|---|",
    ]
    lines += [line(name, members) for name, members in groups.items()]
    lines += [line("**all**", rows), ""]
    for case, ours, theirs in rows:
        if ours.score < theirs.score:
            lines.append(f"- {case.group}: {case.name} ({case.want})")
            lines += [f"    {o.score} {o.status} {o.said}" for o in (ours, theirs)]
    return "\n".join(lines)


def line(name: str, rows: list[Row]) -> str:
    right = [sum(row[i].score == 2 for row in rows) for i in (1, 2)]
    good = sum(ours.score >= theirs.score for _, ours, theirs in rows)
    return f"| {name} | {len(rows)} | {right[0]} | {right[1]} | {good} ({good / len(rows):.1%}) |"


if __name__ == "__main__":
    main()
