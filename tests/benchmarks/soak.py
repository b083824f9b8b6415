"""Load a server with everything that clients do, for long: nothing may be wrong, lost or grow.

    python tests/benchmarks/soak.py MODEL.gguf --seconds 3600 --clients 6

Six clients ask at random for greedy answers (which are compared with those of an idle server, where
no two tokens were nearly as likely: sums of another batch differ in the last bits), streams, tool
calls, schemas, embeddings and log-probabilities, hang up early and late, and send what must be
refused. Prints JSON: wrong answers and statuses, the server's memory, descriptors and
threads over time, processor seconds a request and the latency of greedy answers in four quarters
(their drift), slots that were never given back, and how SIGTERM ends it. Exit code 1 where
something is wrong. Linux; loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.making.serving import Process, Use, served

CHAT, OPTIONS = "/v1/chat/completions", ("--threads", "1", "--context", "4096")
PROMPTS = ("The list is", "What is a class?", "def f(x):", "Import statements", "Strings are",
           "A generator is a function which", "Explain lambda.", "The with statement",
           "What can you do?", "What is a module?", "for i in range(10):")  # fmt: skip
TIE = 0.5  # nats between the two likeliest tokens; quantized sums differ by a tenth
LONG = "The value of the expression is the result of the operation. " * 120
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 9},
        "b": {"enum": ["x", "y"]},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
REFUSED = (b"{", b"\xff", b"[]", b"null", b'{"messages": []}', b'{"messages": 3}',
           b'{"messages": [{"role": "x"}]}',
           b'{"messages": [{"role": "user", "content": "x"}], "temperature": -1}')  # fmt: skip


@dataclass
class Seen:
    """What the clients have seen."""

    reference: dict[str, tuple[str, list[float]]] = field(default_factory=dict)
    deviation: float = 0.0  # of a token's log-probability, nats
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[list[object]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    latency: list[tuple[float, float]] = field(default_factory=list)  # when, seconds

    def expect(self, kind: str, answer: httpx.Response, *statuses: int) -> bool:
        """Note a status that should not have come."""
        if answer.status_code in statuses:
            return True
        self.errors[f"{kind}: {answer.status_code} {answer.text[:150]}"] += 1
        return False


@dataclass
class Client:
    """One of those who ask."""

    http: httpx.AsyncClient
    draw: random.Random
    seen: Seen

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.draw.choice(PROMPTS)}]

    async def post(self, path: str = CHAT, **body: object) -> httpx.Response:
        return await self.http.post(path, json=body)

    async def greedy(self) -> None:
        await self.compare(stream=False)

    async def stream(self) -> None:
        await self.compare(stream=True)

    async def compare(self, stream: bool) -> None:
        prompt, began = self.draw.choice(list(self.seen.reference)), time.monotonic()
        text = await greedy(self.http, prompt, stream)
        self.seen.latency.append((began, time.monotonic() - began))
        self.check(prompt, text, f"greedy, stream {stream}")

    def check(self, prompt: str, text: str, kind: str) -> bool:
        wanted, _ = self.seen.reference[prompt]
        if text != wanted:
            self.seen.wrong.append([kind, prompt, text, wanted])
        return text == wanted

    async def hang_up(self) -> None:
        body = {"messages": self.messages, "max_tokens": 400, "ignore_eos": True, "stream": True}
        last = self.draw.randrange(1, 20)
        async with self.http.stream("POST", CHAT, json=body) as answer:
            lines = 0
            async for _ in answer.aiter_lines():
                lines += 1
                if lines > last:
                    return

    async def hang_up_early(self) -> None:
        body = {"messages": self.messages, "max_tokens": 400, "ignore_eos": True}
        try:
            await self.http.post(CHAT, json=body, timeout=self.draw.uniform(0.01, 0.3))
        except httpx.TimeoutException:
            return

    async def tools(self) -> None:
        choice = self.draw.choice(["auto", "required"])
        body = {"messages": self.messages, "tools": [WEATHER], "tool_choice": choice}
        self.seen.expect("tools", await self.post(**body, max_tokens=30), 200)

    async def schema(self) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        answer = await self.post(messages=self.messages, max_tokens=60, response_format=wanted)
        if self.seen.expect("schema", answer, 200):
            choice = answer.json()["choices"][0]
            if choice["finish_reason"] == "stop":
                value = json.loads(choice["message"]["content"])
                if not (0 <= value["a"] <= 9 and value["b"] in ("x", "y")):
                    self.seen.wrong.append(["schema", value])

    async def embeddings(self) -> None:
        answer = await self.post("/v1/embeddings", input=[self.draw.choice(PROMPTS)] * 3)
        self.seen.expect("embeddings", answer, 200, 400)

    async def long(self) -> None:
        text = LONG[: self.draw.randrange(200, len(LONG))]
        answer = await self.post(messages=[{"role": "user", "content": text}], max_tokens=4)
        self.seen.expect("long", answer, 200)

    async def too_long(self) -> None:
        answer = await self.post(messages=[{"role": "user", "content": LONG * 60}])
        self.seen.expect("too long", answer, 400)

    async def refused(self) -> None:
        body, kind = self.draw.choice(REFUSED), {"content-type": "application/json"}
        answer = await self.http.post(CHAT, content=body, headers=kind)
        self.seen.expect("refused", answer, 400, 404)

    async def several(self) -> None:
        answer = await self.post(messages=self.messages, n=3, max_tokens=8, seed=3)
        self.seen.expect("several", answer, 200)

    async def completions(self) -> None:
        prompts = [self.draw.choice(PROMPTS)] * 2
        answer = await self.post("/v1/completions", prompt=prompts, max_tokens=8)
        self.seen.expect("completions", answer, 200)

    async def logprobs(self) -> None:
        prompt = self.draw.choice(list(self.seen.reference))
        text, logprobs, _ = await likelihoods(self.http, prompt)
        if self.check(prompt, text, "log-probabilities"):
            wanted = self.seen.reference[prompt][1]
            off = max(abs(a - b) for a, b in zip(logprobs, wanted, strict=True))
            self.seen.deviation = max(self.seen.deviation, off)

    async def look(self) -> None:
        for path in ("/v1/models", "/metrics", "/health"):
            self.seen.expect(path, await self.http.get(path), 200)

    async def work(self, until: float) -> None:
        """Do one thing after another, greedy answers more often than others."""
        twice = [self.greedy, self.stream, self.refused]
        kinds: list[Callable[[], Awaitable[None]]] = [
            *twice, *twice, self.hang_up, self.hang_up_early, self.tools, self.schema, self.long,
            self.embeddings, self.too_long, self.several, self.completions, self.logprobs,
            self.look,
        ]  # fmt: skip
        while time.monotonic() < until:
            kind = self.draw.choice(kinds)
            self.seen.kinds[kind.__name__] += 1
            try:
                await kind()
            except (httpx.HTTPError, ValueError, KeyError) as error:
                self.seen.errors[f"{kind.__name__}: {type(error).__name__} {error!s:.100}"] += 1


async def greedy(http: httpx.AsyncClient, prompt: str, stream: bool) -> str:
    """Return the greedy answer to a prompt, whole or in pieces."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 24}
    body |= {"temperature": 0, "stream": stream}
    if not stream:
        answer = (await http.post(CHAT, json=body)).raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    text = ""
    async with http.stream("POST", CHAT, json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["delta"].get("content") or ""
    return text


async def likelihoods(http: httpx.AsyncClient, prompt: str) -> tuple[str, list[float], float]:
    """Return the greedy answer, its tokens' log-probabilities, and how near the nearest tie was."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 24}
    body |= {"temperature": 0, "logprobs": True, "top_logprobs": 2}
    choice = (await http.post(CHAT, json=body)).raise_for_status().json()["choices"][0]
    tokens = choice["logprobs"]["content"]
    gaps = [a["logprob"] - b["logprob"] for a, b in (t["top_logprobs"] for t in tokens)]
    return choice["message"]["content"] or "", [t["logprob"] for t in tokens], min(gaps)


async def references(http: httpx.AsyncClient) -> dict[str, tuple[str, list[float]]]:
    """Return the answers of an idle server in which no token was nearly another."""
    found = {prompt: await likelihoods(http, prompt) for prompt in PROMPTS}
    clear = {
        prompt: (text, logprobs) for prompt, (text, logprobs, gap) in found.items() if gap > TIE
    }
    if len(clear) < 3:
        sys.exit("too few of the prompts have a clear answer with this model")
    return clear


async def soak(server: Process, given: argparse.Namespace) -> tuple[Seen, list[Use], str]:
    """Let the clients work; return what they saw, samples of the process, and the metrics."""
    seen, uses = Seen(), [server.use()]
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        seen.reference = await references(http)
        until = time.monotonic() + given.seconds
        clients = [Client(http, random.Random(f"{given.seed} {i}"), seen)
                   for i in range(given.clients)]  # fmt: skip
        working = [asyncio.create_task(client.work(until)) for client in clients]
        while not all(task.done() for task in working):
            uses.append(server.use())
            await asyncio.wait(working, timeout=10)
        await asyncio.gather(*working)
        await asyncio.sleep(3)  # those who hung up are noticed
        uses.append(server.use())
        for prompt in seen.reference:
            clients[0].check(prompt, await greedy(http, prompt, False), "at the end")
        return seen, uses, (await http.get("/metrics")).text


def report(given: argparse.Namespace, seen: Seen, uses: list[Use], metrics: str) -> dict[str, Any]:
    """Return what is printed, but for the end of the server."""
    quarters = [quarter for quarter in _quarters(sorted(seen.latency)) if quarter]
    steps = uses[:: max(1, len(uses) // 20)]
    numbers = {
        line.split()[0].removeprefix("lfm2gguf_"): float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith(("lfm2gguf_running", "lfm2gguf_waiting", "lfm2gguf_s"))
    }
    return {
        "seconds": given.seconds, "clients": given.clients, "seed": given.seed,
        "requests": sum(seen.kinds.values()), "kinds": dict(seen.kinds.most_common()),
        "wrong": len(seen.wrong), "examples": seen.wrong[:5], "errors": dict(seen.errors),
        "greedy_answers": len(seen.latency), "prompts": len(seen.reference),
        "largest_logprob_deviation": round(seen.deviation, 4),
        "greedy_median_seconds": [round(statistics.median(d for _, d in q), 3) for q in quarters],
        "processor_seconds": [
            round(quarter[-1].processor - quarter[0].processor, 1) for quarter in _quarters(uses)
        ],
        "rss_mib": [use.rss >> 20 for use in steps],
        "descriptors": [use.descriptors for use in steps],
        "threads": [use.threads for use in steps],
        "slots_lost": int(numbers["running"] + numbers["waiting"]), "metrics": numbers,
    }  # fmt: skip


def _quarters(items: list[Any]) -> list[list[Any]]:
    bounds = [len(items) * i // 4 for i in range(5)]
    return [items[a:b] for a, b in itertools.pairwise(bounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--log", type=Path, help="the server's standard error")
    given = parser.parse_args()
    with served(given.model, *OPTIONS, log=given.log) as server:
        found = report(given, *asyncio.run(soak(server, given)))
        found["exit_code"], found["end_seconds"] = server.terminate(60)
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["wrong"] or found["errors"] or found["slots_lost"] or found["exit_code"]))


if __name__ == "__main__":
    main()
