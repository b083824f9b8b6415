"""What ``/metrics`` tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lfm2gguf.runner import Runner, Usage
from lfm2gguf.server.errors import HUNG_UP

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # tokens per second


class Metrics:
    """The measurements of one server; each has its own, so that several may share a process."""

    def __init__(self, runner: Runner) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "lfm2gguf_requests", "HTTP requests", ["path", "status"], registry=registry
        )
        self._first_token = Histogram(
            "lfm2gguf_time_to_first_token_seconds",
            "From a request's arrival at the runner to its first token",
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self._seconds = Histogram(
            "lfm2gguf_answer_seconds",
            "From a request's arrival at the runner to the end of its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._waited = Histogram(
            "lfm2gguf_queue_seconds",
            "What a request waited for a sequence",
            buckets=_SECONDS,
            registry=registry,
        )
        self._rates = Histogram(
            "lfm2gguf_tokens_per_second",
            "Speed of a request's prefill and decode",
            ["phase"],
            buckets=_RATES,
            registry=registry,
        )
        registry.register(_OfRunner(runner))
        ProcessCollector(registry=registry)

    def observe(self, usage: Usage) -> None:
        """Take in what an answer has cost."""
        if not usage.completion_tokens:
            return  # cut short before there was anything to measure
        self._first_token.observe(usage.time_to_first_token)
        self._seconds.observe(usage.seconds)
        self._waited.observe(usage.waited)
        self._rates.labels("prefill").observe(usage.prefill_speed)
        if usage.decode_speed:
            self._rates.labels("decode").observe(usage.decode_speed)

    def text(self) -> bytes:
        """Return the exposition in Prometheus' text format."""
        return generate_latest(self._registry)


class _OfRunner(Collector):
    """What the runner knows of itself, asked when Prometheus asks."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def collect(self) -> Iterator[Metric]:
        load, memory = self._runner.load, self._runner.memory
        for name, help, value in (
            ("running", "Answers being computed", load.running),
            ("waiting", "Answers waiting for a sequence", load.waiting),
            ("context_tokens", "Tokens the context holds at most", self._runner.context_size),
            ("held_tokens", "Tokens the context holds", memory.held_tokens),
            ("state_bytes", "Saved states of conversations", memory.state_bytes),
            ("stored_sequences", "Conversations outside of the context", memory.stored_sequences),
        ):
            yield GaugeMetricFamily(f"lfm2gguf_{name}", help, value)
        prompt = CounterMetricFamily(
            "lfm2gguf_prompt_tokens",
            "Tokens of prompts, by where they came from",
            labels=["source"],
        )
        prompt.add_metric(["computed"], load.prefilled_tokens)
        prompt.add_metric(["cache"], load.cached_tokens)
        yield prompt
        yield CounterMetricFamily(
            "lfm2gguf_generated_tokens", "Tokens of answers", load.generated_tokens
        )


class CountRequests:
    """ASGI middleware that counts requests by path and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note what became of it."""
        status = HUNG_UP

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if scope["type"] == "http":
                endpoint: Any = scope.get("endpoint")
                path = getattr(endpoint, "path", "other")  # the template, not what the client sent
                self._metrics.requests.labels(path, str(status)).inc()
