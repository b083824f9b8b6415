"""A file in this process: depths on llama.cpp itself, workloads through the :class:`Runner`."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

from lfm2gguf.bench.cells import Cell
from lfm2gguf.bench.machine.processes import own_resident
from lfm2gguf.bench.machine.roofline import cache_bytes
from lfm2gguf.bench.metrics import RUNTIME, Measurement
from lfm2gguf.bench.sources.worker import Worker
from lfm2gguf.bench.workloads import workload
from lfm2gguf.errors import ContextError, RuntimeFailureError
from lfm2gguf.llamacpp import Chunk, Context, Model, available_memory, choose, report
from lfm2gguf.loadable import check_loadable
from lfm2gguf.members import trained_context
from lfm2gguf.options import OptionChanges
from lfm2gguf.runner import DeviceReport, Runner, Usage, check_file, check_memory, place

GREEDY: OptionChanges = {"temperature": 0.0, "repeat_penalty": 1.0, "ignore_eos": True}
ROOM = 128  # cells of context for each request beyond its tokens


class InProcess:
    """Measures a GGUF file. One of the two, depths or workloads, is open at a time.

    Depths do what ``llama-bench -p N`` and ``llama-bench -n 32 -d N`` do (llama.cpp,
    tools/llama-bench/llama-bench.cpp): random tokens, batches of 2048, no sampling. Workloads
    are chat requests; times are the runner's, from submission to each drawn token.
    """

    def __init__(
        self,
        path: Path,
        *,
        cells: Sequence[Cell],
        device: str = "auto",
        gpu_layers: int | None = None,
        threads: int | None = None,
        prompt_cache: bool = False,
        lookup: int = 8,
    ) -> None:
        self.path, self.file = path, check_file(path)
        check_loadable(self.file)
        deepest = max((c.prompt + c.output for c in cells if c.is_depth), default=0)
        self.on, self._layers = place(self.file, choose(device), gpu_layers, device, deepest)
        self._settings = {"device": device, "gpu_layers": gpu_layers, "threads": threads}
        self._cells, self._threads, self._prompt_cache = cells, threads, prompt_cache
        self._lookup = lookup
        self.device: DeviceReport | None = None  # what it really ran on, once it has
        self._model: Model | None = None
        self._context: Context | None = None
        self._worker = Worker()  # of the depths
        self._runner: Runner | None = None

    def prepare(self, cell: Cell) -> None:
        """Open the file for a cell.

        Raises:
            ContextError: the model or the memory does not allow its context.

        """
        if cell.is_depth:
            self._check_depth(cell)
            self._open_depth(cell)
        elif self._runner is None:
            self._open_workloads()

    def measure(self, cell: Cell, numbers: Sequence[int]) -> list[Measurement]:
        """Measure one run."""
        if cell.is_depth:
            return [self._worker.call(lambda: self._measure_depth(cell, numbers[0]))]
        assert self._runner is not None
        prompts = [workload(cell.name).messages(number) for number in numbers]
        options: OptionChanges = {**GREEDY, "max_tokens": cell.output}
        replies = self._runner.batch(prompts, **options)
        return [_measurement(reply.usage) for reply in replies]

    def resident(self) -> int | None:
        """Return the bytes that this process holds."""
        return own_resident()

    def close(self) -> None:
        """Free context, model and runner."""
        self._worker.close()
        for opened in (self._context, self._model, self._runner):
            if opened is not None:
                opened.close()
        self._context = self._model = self._runner = None

    # depths

    def _check_depth(self, cell: Cell) -> None:
        limit = trained_context(self.file)
        if cell.prompt > limit:
            raise ContextError(f"the model was made for contexts of up to {limit} tokens")
        needed, available = cache_bytes(self.file, cell.prompt), available_memory()
        if not self.on and available is not None and needed > available:
            raise ContextError(
                f"its keys and values need {needed / 1e9:.1f} GB, but only "
                f"{available / 1e9:.1f} GB of memory are available"
            )

    def _open_depth(self, cell: Cell) -> None:
        if self._runner:
            self.close()
            self._worker = Worker()
        if self._model is None:
            size = sum(tensor.nbytes for tensor in self.file.tensors.values())
            if not self.on:
                check_memory(self.path, size, available_memory())
            self._model = Model(self.path, self.on, self._layers)
        if self._context:
            self._context.close()
            self._context = None
        n_ctx = cell.prompt + cell.output
        self._context = Context(self._model, n_ctx=n_ctx, n_outputs=1, threads=self._threads)
        self.device = report(self._model, self._context, self.on)

    def _measure_depth(self, cell: Cell, number: int) -> Measurement:
        context = self._context
        assert context is not None
        model = context.model
        draw = random.Random(number)  # noqa: S311 - any tokens will do
        tokens = [draw.randrange(model.n_vocab) for _ in range(cell.prompt + cell.output)]
        if model.adds_bos:
            tokens[0] = model.bos
        context.clear()
        began = time.perf_counter()
        for start in range(0, cell.prompt, context.n_batch):
            self._go_on()
            piece = tokens[start : min(start + context.n_batch, cell.prompt)]
            context.decode([Chunk(0, start, piece, 1)])
        context.logits()  # waits for the device
        prefilled = time.perf_counter()
        for at in range(cell.prompt, cell.prompt + cell.output):
            self._go_on()
            context.decode([Chunk(0, at, tokens[at : at + 1], 1)])
            context.logits()
        ended = time.perf_counter()
        first, last = prefilled - began, ended - began
        return Measurement(cell.prompt, cell.output, first, last, last, cell.output, 0, RUNTIME)

    def _go_on(self) -> None:
        if self._worker.stopped.is_set():
            raise RuntimeFailureError("the measurement was interrupted")

    # workloads

    def _open_workloads(self) -> None:
        self.close()
        requests = [cell for cell in self._cells if not cell.is_depth]
        self._runner = self._open(context=512, parallel=1)  # to count tokens
        lengths = {
            name: self._runner.count_tokens(workload(name).messages(0))
            for name in {cell.name for cell in requests}
        }
        self._runner.close()
        room = max(c.concurrency * (lengths[c.name] + c.output + ROOM) for c in requests)
        most = max(c.concurrency for c in requests)
        self._runner = self._open(context=room, parallel=most)
        self.device = self._runner.device

    def _open(self, context: int, parallel: int) -> Runner:
        state_bytes = 256 << 20 if self._prompt_cache else 0
        return Runner(
            self.path, context=context, parallel=parallel, state_bytes=state_bytes,
            lookup=self._lookup,
            **self._settings,  # type: ignore[arg-type]
        )  # fmt: skip


def _measurement(usage: Usage) -> Measurement:
    return Measurement(
        prompt_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        first=usage.time_to_first_token,
        last=usage.seconds,
        total=usage.seconds,
        steps=usage.completion_tokens - 1,
        cached_tokens=usage.cached_tokens,
        guessed_right=usage.guessed_right,
        counted=RUNTIME,
    )
