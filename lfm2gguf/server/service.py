"""What the endpoints share: the runner, its name, the key, the limits, the measurements."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from starlette.requests import Request

from lfm2gguf.runner import Runner, Stream
from lfm2gguf.server.errors import Refusal
from lfm2gguf.server.limits import Limits
from lfm2gguf.server.metrics import Metrics


@dataclass
class Service:
    """One model, being served."""

    runner: Runner
    name: str
    api_keys: tuple[str, ...]
    limits: Limits
    metrics: Metrics
    strict_model: bool = False  # whether requests for other models are refused
    created: int = field(default_factory=lambda: int(time.time()))
    active: int = 0  # answers that are computed or wait

    @property
    def names(self) -> tuple[str, ...]:
        """The models: the file, and it with each of its adapters."""
        return (self.name, *self.runner.adapters)

    def name_of(self, wanted: str | None) -> str:
        """Return the model that answers: clients often send a name that they have from elsewhere.

        Raises:
            Refusal: the server is strict, and has no model of this name.
        """
        if wanted in self.names:
            return wanted
        if wanted and self.strict_model:
            self.check_model(wanted)
        return self.name

    def adapter_of(self, wanted: str | None) -> str | None:
        """Return the adapter that a model's name stands for."""
        return wanted if wanted in self.runner.adapters and wanted != self.name else None

    def check_model(self, wanted: str) -> None:
        """Refuse requests for another model."""
        if wanted not in self.names:
            raise Refusal(
                404,
                f"there is no model {wanted[:200]!r} here; this server has "
                f"{', '.join(map(repr, self.names))}",
                code="model_not_found",
                param="model",
            )

    def check_prompt(self, stream: Stream) -> Stream:
        """Refuse prompts that are too long; one token of the context is the answer's."""
        longest = self.runner.context_size - 1
        longest = min(longest, self.limits.prompt_tokens or longest)
        if stream.prompt_tokens > longest:
            raise Refusal(
                400,
                f"the prompt has {stream.prompt_tokens} tokens, and this server takes "
                f"{longest} at most: shorten it",
                code="context_length_exceeded",
            )
        return stream

    def admit(self, count: int) -> None:
        """Count answers in. They are refused where too many wait already."""
        room = self.runner.parallel + self.limits.queue
        if count > room:
            raise Refusal(400, f"a request may ask for {room} answers at most, not {count}")
        if self.active + count > room:
            raise Refusal(
                429,
                f"{self.active} answers are being computed or wait: try again later",
                code="queue_full",
                headers={"Retry-After": "1"},
            )
        self.active += count

    def release(self, count: int) -> None:
        """Count answers out."""
        self.active -= count


def authorize(service: Service, request: Request) -> None:
    """Refuse requests without one of the server's keys, where it has any."""
    if not service.api_keys:
        return
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        key = request.headers.get("x-api-key", "")
    sent = key.encode()
    fits = [secrets.compare_digest(sent, key.encode()) for key in service.api_keys]
    if not any(fits):
        raise Refusal(
            401,
            "the API key is missing or wrong: send it as 'Authorization: Bearer KEY' or "
            "'x-api-key: KEY'",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
