"""A server that speaks OpenAI's protocol, measured at the client.

Requests are ``POST /v1/chat/completions`` with ``stream``; the clock starts when the request is
sent and notes when pieces of the answer arrive. Tokens are counted by the server's ``usage``;
where it sends none, by the file's tokenizer; without a file, chunks are counted, and the report
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from lfm2gguf.bench.cells import Cell
from lfm2gguf.bench.machine.processes import listener, resident
from lfm2gguf.bench.metrics import CHUNKS, TOKENIZER, USAGE, Measurement
from lfm2gguf.bench.sources.openai_client import Answer, RefusedError, Wire, host_and_port
from lfm2gguf.bench.workloads import filler, workload
from lfm2gguf.errors import EndpointError, OptionError

if TYPE_CHECKING:
    from lfm2gguf.bench.sources.token_counter import Counter

LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104 - an address to connect to
CALIBRATION = (64, 192)  # words of the two requests that tell how many tokens a word has
IGNORE_EOS = "ignore_eos"


class Endpoint:
    """Measures a server.

    Args:
        url: such as ``http://127.0.0.1:8080``, with or without ``/v1``.
        model: its name there; None: the first that the server lists.
        api_key: sent as a bearer token.
        pid: the server's process, for its memory; None: looked up by the port where it is local.
        counter: counts tokens where the server does not.
        prompt_cache: lets the server reuse earlier prompts.

    Raises:
        OptionError: ``url`` is not an address.
        EndpointError: the server does not answer.

    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        pid: int | None = None,
        counter: Counter | None = None,
        prompt_cache: bool = False,
    ) -> None:
        asked = url.rstrip("/").removesuffix("/v1")
        host, port = host_and_port(asked)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise OptionError("api_key (--api-key): holds what a header cannot; give it again")
        self.is_local = host in LOOPBACK
        self._wire = Wire(asked, api_key)
        self.url = self._wire.url  # as it may be shown
        self.model = model or self._first_model()
        self._counter = counter
        self.pid = pid or (listener(port) if self.is_local else None)
        # The first form that the server takes is used for all requests.
        usage = {"stream_options": {"include_usage": True}}
        extras = {IGNORE_EOS: True, "repeat_penalty": 1.0, "cache_prompt": prompt_cache}
        self._forms: list[dict[str, Any]] = [usage | extras, usage, extras, {}]
        self._settled = False
        self._tokens_per_word: tuple[float, float] | None = None
        self.notes: dict[str, str] = {}

    def prepare(self, cell: Cell) -> None:
        """Find out what the server takes and, for depths, how many tokens a word has."""
        if not self._settled:
            self._settle()
        if cell.is_depth and self._tokens_per_word is None:
            self._calibrate()

    def measure(self, cell: Cell, numbers: Sequence[int]) -> list[Measurement]:
        """Send the requests of one run at once, each on a connection of its own."""
        prompts = [self._messages(cell, number) for number in numbers]
        measured = self._together([partial(self._ask, prompt, cell.output) for prompt in prompts])
        self._note(cell, measured)
        return measured

    def resident(self) -> int | None:
        """Return the bytes that the server's process holds."""
        return resident(self.pid) if self.pid else None

    def close(self) -> None:
        """Close the connections; the server drops what is under way."""
        self._wire.client.close()

    def properties(self) -> dict[str, Any]:
        """Return what llama-server tells of itself under ``/props``; empty for other servers."""
        try:
            found = self._wire.get("/props")
        except EndpointError:
            return {}
        if not isinstance(found, dict):
            return {}
        wanted = ("build_info", "model_path", "total_slots", "model_alias")
        return {key: found[key] for key in wanted if key in found}

    # requests

    def _messages(self, cell: Cell, number: int) -> list[dict[str, str]]:
        if not cell.is_depth:
            return workload(cell.name).messages(number)
        assert self._tokens_per_word is not None
        slope, constant = self._tokens_per_word
        words = max(1, round((cell.prompt - constant) / slope))
        return [{"role": "user", "content": filler(words, number)}]

    def _together(self, calls: Sequence[Callable[[], Measurement]]) -> list[Measurement]:
        if len(calls) == 1:
            return [calls[0]()]
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = [pool.submit(call) for call in calls]
            try:
                return [future.result() for future in futures]
            except KeyboardInterrupt:
                self.close()  # the threads' reads fail, and they end
                raise

    def _ask(self, messages: list[dict[str, str]], output: int) -> Measurement:
        body = {
            "model": self.model, "messages": messages, "max_tokens": output,
            "temperature": 0, "stream": True, **self._forms[0],
        }  # fmt: skip
        return self._measurement(messages, self._wire.ask(body))

    def _measurement(self, messages: list[dict[str, str]], answer: Answer) -> Measurement:
        prompt = answer.usage.get("prompt_tokens")
        output, counted = answer.usage.get("completion_tokens"), USAGE
        if output is None and self._counter is not None:
            prompt, output = self._counter.prompt(messages), self._counter.text(answer.text)
            counted = TOKENIZER
        elif output is None:
            output, counted = answer.chunks, CHUNKS
        # in one chunk, no time between tokens is seen
        steps = output - 1 if answer.chunks > 1 else 0
        return Measurement(
            prompt, output, answer.first, answer.last, answer.total, steps, answer.cached, counted
        )

    def _first_model(self) -> str:
        try:
            return str(self._wire.get("/v1/models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError(
                f"{self.url}: lists no models under /v1/models; name one, model (--model)"
            ) from error

    # what the server takes, and how it counts

    def _settle(self) -> None:
        """Find the most that the server takes: unknown fields are refused by some."""
        messages = [{"role": "user", "content": "Hello"}]
        while True:
            try:
                self._ask(messages, 2)
                break
            except RefusedError:
                if len(self._forms) == 1:
                    raise
                del self._forms[0]
        self._settled = True
        if IGNORE_EOS not in self._forms[0]:
            self.notes["extras"] = (
                "the server refuses ignore_eos, repeat_penalty and cache_prompt: answers may end "
                "early, and its own defaults apply"
            )

    def _calibrate(self) -> None:
        """Solve tokens = slope * words + constant from two short prompts."""
        counts = [
            self._ask([{"role": "user", "content": filler(words, words)}], 1).prompt_tokens
            for words in CALIBRATION
        ]
        low, high = counts
        if not low or not high or high <= low:
            raise EndpointError(
                f"{self.url}: does not count tokens; give the model's file, MODEL.gguf, too"
            )
        slope = (high - low) / (CALIBRATION[1] - CALIBRATION[0])
        self._tokens_per_word = slope, low - slope * CALIBRATION[0]

    def _note(self, cell: Cell, measured: Sequence[Measurement]) -> None:
        """Remember what a reader of the figures must know."""
        outputs = [m.output_tokens for m in measured]
        if min(outputs) < cell.output and measured[0].counted != CHUNKS:
            self.notes["length"] = (
                "answers ended before the wanted length: the server does not honour ignore_eos, "
                "or its context is full"
            )
        if any(m.steps == 0 for m in measured) and cell.output > 1:
            self.notes["stream"] = "answers came in one piece: their decode speed is unknown"
        if any(m.counted == CHUNKS for m in measured):
            self.notes["chunks"] = (
                "the server sends no usage: output tokens are chunks of the stream, and prompts "
                "are not counted; give MODEL.gguf beside --endpoint to count with its tokenizer"
            )
