"""Runs the suites of this folder against a server, and writes the table of what works.

``python -m tests.clients.running ENVIRONMENT NAME=URL ...`` prints the table in Markdown: a row for
each client and a column for each server, which must ask for the key ``secret`` and serve the
example model as ``tiny``. ENVIRONMENT is a folder that ``environment.sh`` has filled.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SUITES = Path(__file__).parent / "suites"
PYTHON, OTHER, NODE = "python", "llama-index", "node"
# each suite's environment; the two of Python's hold different versions of openai and anthropic
CLIENTS = {
    "openai_chat": PYTHON, "openai_responses": PYTHON, "anthropic": OTHER, "litellm": PYTHON,
    "langchain_openai": PYTHON, "llama_index": OTHER, "llm": PYTHON, "instructor": PYTHON,
    "pydantic_ai": PYTHON, "openai_agents": PYTHON, "smolagents": PYTHON,
    "openai": NODE, "ai": NODE,
}  # fmt: skip
CHECKS = ("text", "stream", "tools", "structured", "errors")
# what a suite has besides the checks, or lacks of them
OTHERS = {
    "litellm": (*CHECKS, "responses", "messages"),
    "instructor": ("stream", "tools", "structured", "responses", "errors"),
}


def checks_of(client: str) -> tuple[str, ...]:
    """The names of a suite's checks."""
    return OTHERS.get(client, CHECKS)


def run(client: str, environment: Path, url: str, model: str = "tiny") -> dict[str, Any]:
    """Run a suite: what was wrong with each check, "" if nothing; or ``missing``, and why."""
    if CLIENTS[client] == NODE:
        node, folder = shutil.which("node"), environment / NODE
        if not node or not (folder / "node_modules").is_dir():
            return {"missing": f"node, or {folder}/node_modules, is not there"}
        command = [node, str(SUITES / f"with_{client}.mjs")]
    else:
        python, folder = environment / CLIENTS[client] / "bin" / "python", environment
        if not python.exists():
            return {"missing": f"{python} is not there"}
        command = [str(python), str(SUITES / f"with_{client}.py")]
    done = subprocess.run(
        [*command, url, model], cwd=folder, env=os.environ | QUIET, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    missing = [line["missing"] for line in lines if "missing" in line]
    if "ModuleNotFoundError" in done.stderr and not lines:
        missing = [done.stderr.strip().splitlines()[-1]]
    if missing:
        return {"missing": missing[0]}
    found = {line["check"]: line.get("why", "") for line in lines}
    silent = f"it did not come to this check: {done.stderr[-2000:]}"
    return {check: found.get(check, silent) for check in checks_of(client)}


QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1", "AI_SDK_LOG_WARNINGS": "false",
}  # fmt: skip


def table(environment: Path, servers: dict[str, str]) -> str:
    """What works with which server, in Markdown."""
    lines = [f"| client | {' | '.join(servers)} |", "|---" * (len(servers) + 1) + "|"]
    for client in CLIENTS:
        cells = []
        for url in servers.values():
            found = run(client, environment, url)
            bad = [check for check, why in found.items() if why]
            cells.append("all" if not bad else "missing" if "missing" in found else _but(bad))
            for check in bad:
                print(client, url, check, found[check], sep="\n", file=sys.stderr)
        lines.append(f"| {client} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _but(bad: list[str]) -> str:
    return f"all but {', '.join(bad)}"


if __name__ == "__main__":
    folder, *given = sys.argv[1:]
    print(table(Path(folder), dict(pair.split("=", 1) for pair in given)))
