"""Restart replicas behind nginx one after the other, under load: is any request lost?

    python -m tests.benchmarks.rolling_restart MODEL.gguf [--clients 4] [--turns 3]

Needs nginx. Clients hold conversations of some turns through examples/cluster/nginx.conf, with and
without streams, while each of two replicas is ended with SIGTERM and started again. Prints JSON:
requests, failures, how long each replica took to end, and the share of a later turn's prompt that
was not computed again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

CONF = Path(__file__).parents[2] / "examples" / "cluster" / "nginx.conf"


class Replica:
    """A server process on a port of its own."""

    def __init__(self, model: Path, port: int) -> None:
        self.model, self.port = model, port
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "lfm2gguf_cli.main", "serve", str(self.model)]
        command += ["--name", "model", "--port", str(self.port)]
        command += ["--threads", "1", "--parallel", "4"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait_ready(self) -> None:
        for _ in range(600):
            self.check_alive()
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise RuntimeError(f"the replica on port {self.port} does not start")

    def check_alive(self) -> None:
        """Refuse a replica that has ended: the requests that it lost are not the restart's."""
        if (code := self.process.poll()) is not None:
            raise RuntimeError(f"the replica on port {self.port} ended by itself, with code {code}")

    def restart(self) -> float:
        """End it, and start it again; return the seconds until it had ended."""
        self.check_alive()
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        ended = time.monotonic() - began
        self.start()
        self.wait_ready()
        return ended


class Client(threading.Thread):
    """Holds one conversation after the other until it is told to stop."""

    def __init__(self, url: str, number: int, turns: int, stop: threading.Event) -> None:
        super().__init__()
        self.url, self.number, self.turns, self.stop = url, number, turns, stop
        self.requests, self.failures = 0, list[str]()
        self.prompt = self.cached = 0  # tokens of later turns

    def run(self) -> None:
        with httpx.Client(timeout=60) as http:
            talk = 0
            while not self.stop.is_set():
                talk += 1
                messages = [{"role": "system", "content": "You answer in one sentence."}]
                for turn in range(self.turns):
                    asked = f"{self.number}.{talk}.{turn}: what does len do?"
                    messages.append({"role": "user", "content": asked})
                    answer = self.ask(http, messages, first=turn == 0)
                    if answer is None:
                        break
                    messages.append({"role": "assistant", "content": answer})

    def ask(self, http: httpx.Client, messages: list[dict[str, str]], *, first: bool) -> str | None:
        self.requests += 1
        body = {"model": "model", "messages": messages, "max_tokens": 24, "temperature": 0}
        try:
            if self.number % 2:
                return self.stream(http, body)
            response = http.post(f"{self.url}/v1/chat/completions", json=body)
            found = response.raise_for_status().json()
            usage = found["usage"]
            if not first:
                self.prompt += usage["prompt_tokens"]
                self.cached += usage["prompt_tokens_details"]["cached_tokens"]
            return str(found["choices"][0]["message"]["content"])
        except (httpx.HTTPError, KeyError, ValueError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return None

    def stream(self, http: httpx.Client, body: dict[str, object]) -> str:
        text, finished = "", False
        options = body | {"stream": True}
        with http.stream("POST", f"{self.url}/v1/chat/completions", json=options) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                finished |= line == "data: [DONE]"
                if line.startswith("data: {"):
                    [choice] = json.loads(line[6:])["choices"] or [{"delta": {}}]
                    text += choice["delta"].get("content") or ""
        if not finished:
            raise ValueError("the stream ended before its end")
        return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def measure(model: Path, clients: int, turns: int) -> dict[str, object]:
    ports = [free_port() for _ in range(3)]
    conf = CONF.read_text(encoding="utf-8")
    for old, new in zip((8080, 8081, 8082), ports, strict=True):
        conf = re.sub(rf"127\.0\.0\.1:{old}\b", f"127.0.0.1:{new}", conf)
    replicas = [Replica(model, port) for port in ports[1:]]
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nginx.conf").write_text(conf, encoding="utf-8")
        command = [nginx, "-p", folder, "-c", "nginx.conf", "-g", "daemon off;"]
        proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stop = threading.Event()
        url = f"http://127.0.0.1:{ports[0]}"
        threads = [Client(url, i, turns, stop) for i in range(clients)]
        try:
            for replica in replicas:
                replica.wait_ready()
            for thread in threads:
                thread.start()
            time.sleep(3)
            ended = []
            for replica in replicas:
                ended.append(replica.restart())
                time.sleep(3)  # fail_timeout: nginx asks it again
        finally:
            stop.set()
            for thread in threads:
                if thread.ident:
                    thread.join()
            proxy.terminate()
            proxy.wait()
            for replica in replicas:
                replica.process.terminate()
                replica.process.wait(60)
    prompt = sum(thread.prompt for thread in threads)
    return {
        "requests": sum(thread.requests for thread in threads),
        "failures": [failure for thread in threads for failure in thread.failures],
        "seconds to end": [round(seconds, 2) for seconds in ended],
        "cached share of later turns": round(sum(t.cached for t in threads) / max(1, prompt), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    print(json.dumps(measure(given.model, given.clients, given.turns), indent=2))


if __name__ == "__main__":
    main()
