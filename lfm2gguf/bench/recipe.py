"""The recipe: check, describe the machine, probe it, measure every subject, report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lfm2gguf.bench.cells import CONTEXTS, DECODED, Cell, plan
from lfm2gguf.bench.machine.environment import describe_file, environment, machine_name
from lfm2gguf.bench.machine.roofline import roofline, weight_bytes
from lfm2gguf.bench.report.data import Report, Row, Subject
from lfm2gguf.bench.sources.endpoint import Endpoint
from lfm2gguf.bench.sources.inprocess import InProcess
from lfm2gguf.bench.sources.worker import Worker
from lfm2gguf.bench.suite import Outcome, Source, Suite
from lfm2gguf.bench.workloads import WORKLOAD_NAMES
from lfm2gguf.errors import Lfm2ggufError, OptionError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import Device, choose, default_threads, devices, probe
from lfm2gguf.numeric import check_numbers, numbers_checked
from lfm2gguf.progress import ProgressCallback
from lfm2gguf.runner import check_file

PROBED = ("device", "threads")  # what probes alone take, where a server computes
BUSY = 0.5  # of the cores: a load above it, before anything is measured, is others' work
CACHES = {
    False: "defeated: every prompt begins with a number that no earlier one had",
    True: "used: every prompt of a workload is the same; warm-ups fill the cache",
}


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run; what :func:`benchmark` takes by the same names."""

    suite: str = "all"
    contexts: Sequence[int] = CONTEXTS
    workloads: Sequence[str] = WORKLOAD_NAMES
    concurrency: Sequence[int] | None = None
    warm_ups: int = 2
    runs: int = 5
    prompt_cache: bool = False
    lookup: int = 8  # most tokens guessed at once, as a Runner's
    device: str = "auto"
    gpu_layers: int | None = None
    threads: int | None = None
    probes: bool = True

    def __post_init__(self) -> None:
        check_numbers(type(self).__annotations__, vars(self))

    def cells(self) -> list[Cell]:
        """Return what is measured.

        Raises:
            OptionError: a setting has a value that cannot be measured.

        """
        if self.runs < 1 or self.warm_ups < 0:
            raise OptionError(
                f"runs and warm_ups: {self.runs} and {self.warm_ups} are too small; give at "
                "least 1 and 0"
            )
        return plan(self.suite, self.contexts, self.workloads, self.concurrency)

    def to_json(self) -> dict[str, Any]:
        """Return the settings, and what they imply, as plain data."""
        return {
            **asdict(self),
            "sampling": "greedy, ending at the wanted length",
            "prompt_caches": CACHES[self.prompt_cache],
            "decoded_at_each_depth": DECODED,
        }


@numbers_checked
def benchmark(
    models: Sequence[str | Path] = (),
    *,
    endpoint: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    pid: int | None = None,
    progress: ProgressCallback | None = None,
    **settings: Any,
) -> Report:
    """Measure speed over depth and workloads, in this process or through an endpoint.

    ``models`` are GGUF files. With ``endpoint``, the address of a server that speaks OpenAI's
    protocol, at most one, which that server runs: it is described, and counts tokens where the
    server does not. ``model`` is the server's name for it, ``pid`` the server's process. The
    ``settings`` are the fields of :class:`Settings`.

    An interrupt (Ctrl-C) ends the measuring, not the report: its ``cut`` says what is missing.

    Raises:
        OptionError: a setting is unknown, has a wrong value or no effect, or there is nothing to
            measure.
        GGUFError: a file is missing or damaged.
        DeviceError: the device is missing.
        EndpointError: the server cannot be reached or refuses.

    """
    try:
        chosen = Settings(**settings)
    except TypeError as error:
        raise OptionError(f"unknown setting: {error}") from error
    server = {"model": model, "api_key": api_key, "pid": pid}
    given = [name for name, value in (settings | server).items() if value is not None]
    _refuse_idle(given, chosen, served=endpoint is not None)
    paths = [Path(path) for path in models]
    cells = chosen.cells()
    for path in paths:
        check_file(path)
    if endpoint is None:
        choose(chosen.device)  # a device that is not there is said before anything is measured
        runs: list[_Run] = [_InProcessRun(path, cells, chosen) for path in paths]
    elif len(paths) > 1:
        raise OptionError(
            "models: a server runs one; give at most one file beside endpoint (--endpoint)"
        )
    else:
        there = _EndpointRun(endpoint, model, api_key, pid, paths, cells, chosen)
        if not there.source.is_local:
            _refuse(given, PROBED, "is of this machine, and the server is elsewhere")
        runs = [there]
    if not runs:
        raise OptionError(
            "models: nothing to measure; give a GGUF file, or the endpoint (--endpoint) of a server"
        )
    return _measure(runs, cells, chosen, progress)


def _refuse_idle(given: Sequence[str], settings: Settings, *, served: bool) -> None:
    """Refuse settings of what is not measured."""
    suite = settings.suite
    if served:
        _refuse(given, ("gpu_layers", "lookup"), "is for files in process, not for an endpoint")
        if not settings.probes:
            _refuse(given, PROBED, "is for probes beside an endpoint, and there are to be none")
    else:
        _refuse(given, ("model", "api_key", "pid"), "is for an endpoint (--endpoint)")
    if suite == "depth":
        _refuse(given, ("workloads", "concurrency"), "is of the suite 'workloads', not of 'depth'")
    elif suite == "workloads":
        _refuse(given, ("contexts",), "is of the suite 'depth', not of 'workloads'")


def _refuse(given: Sequence[str], idle: Sequence[str], why: str) -> None:
    for name in given:
        if name in idle:
            raise OptionError(f"{name} (--{name.replace('_', '-')}): {why}; leave it out")


def _measure(
    runs: Sequence[_Run], cells: list[Cell], settings: Settings, progress: ProgressCallback | None
) -> Report:
    about = environment()
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    subjects: list[Subject] = []
    cut: str | None = None
    for i, run in enumerate(runs):
        suite = Suite(
            cells, runs=settings.runs, warm_ups=settings.warm_ups,
            prompt_cache=settings.prompt_cache, progress=progress,
            label=run.label if len(runs) > 1 else "",
        )  # fmt: skip
        subject, cut = run.measure(suite, about)
        subjects.append(replace(subject, notes=(*subject.notes, *_company(about))))
        if cut:
            others = [other.label for other in runs[i + 1 :]]
            cut += f"; not begun: {', '.join(others)}" if others else ""
            break
    about["load_average_after"] = environment().get("load_average")
    return Report(tuple(subjects), settings.to_json(), about, created, cut)


def _company(about: dict[str, Any]) -> list[str]:
    """Say if others were at work when the benchmark began."""
    load, cores = about.get("load_average", [0.0])[0], about["cores"]["logical"]
    if load < BUSY * cores:
        return []
    return [f"other programs were at work when it began: a load of {load:g} on {cores} cores"]


class _InProcessRun:
    """A file in this process."""

    def __init__(self, path: Path, cells: list[Cell], settings: Settings) -> None:
        self.label, self._path, self._cells, self._settings = path.name, path, cells, settings

    def measure(self, suite: Suite, about: dict[str, Any]) -> tuple[Subject, str | None]:
        given = self._settings
        source = InProcess(
            self._path, cells=self._cells, device=given.device, gpu_layers=given.gpu_layers,
            threads=given.threads, prompt_cache=given.prompt_cache, lookup=given.lookup,
        )  # fmt: skip
        device = source.on[0] if source.on else _processor()
        about_file = _described(source.file)
        probes, why = _probe(device, given)
        with _closing(source):
            outcome = suite.measure(source)
        used = source.device
        return _subject(
            outcome,
            name=self._path.name,
            via="in process",
            machine=machine_name(about, used.device if used else None),
            file=source.file,
            described=about_file,
            device=used.to_json() if used else None,
            probes=probes,
            notes=why,
        ), outcome.cut


class _EndpointRun:
    """A server, and perhaps the file that it runs."""

    def __init__(
        self,
        url: str,
        model: str | None,
        api_key: str | None,
        pid: int | None,
        paths: list[Path],
        cells: list[Cell],
        settings: Settings,
    ) -> None:
        from lfm2gguf.bench.sources.token_counter import Counter

        self._counter = Counter(paths[0]) if paths else None
        self._file = check_file(paths[0]) if paths else None
        self._settings = settings
        self.source = Endpoint(
            url, model=model, api_key=api_key, pid=pid, counter=self._counter,
            prompt_cache=settings.prompt_cache,
        )  # fmt: skip
        self.label = self.source.url

    def measure(self, suite: Suite, about: dict[str, Any]) -> tuple[Subject, str | None]:
        source, local = self.source, self.source.is_local
        server = source.properties()
        file = self._file or (_served_file(server) if local else None)
        about_file = _described(file)
        probes: dict[str, Any] | None = None
        why = ["the server is elsewhere: the environment is the client's, and nothing is probed"]
        if local:
            probes, why = _probe(None, self._settings)
        with _closing(source), _closing(self._counter):
            outcome = suite.measure(source)
        if source.pid is None:
            why.append("memory growth is unknown: give the server's process, pid (--pid)")
        return _subject(
            outcome,
            name=file.path.name if file else source.model,
            via=source.url,
            machine=machine_name(about) if local else source.url,
            file=file,
            described=about_file,
            device={"server": server} if server else None,
            probes=probes,
            notes=[*why, *source.notes.values()],
        ), outcome.cut


_Run = _InProcessRun | _EndpointRun


@contextlib.contextmanager
def _closing(source: Source | Any) -> Iterator[None]:
    try:
        yield
    finally:
        if source is not None:
            source.close()


def _served_file(server: dict[str, Any]) -> GGUFFile | None:
    """Open the file that a local llama-server says it runs, if it can be read."""
    try:
        return check_file(Path(str(server["model_path"])))
    except (KeyError, Lfm2ggufError):
        return None


def _described(file: GGUFFile | None) -> dict[str, Any] | None:
    if file is None:
        return None
    return describe_file(file) | {"bytes_read_per_token": weight_bytes(file)}


def _processor() -> Device:
    return next(device for device in devices() if device.kind == "cpu")


def _probe(device: Device | None, settings: Settings) -> tuple[dict[str, Any] | None, list[str]]:
    """Probe a device (None: the one that would be chosen); the figures, or why there are none."""
    if not settings.probes:
        return None, []
    try:
        if device is None:
            device = next(iter(choose(settings.device)), None) or _processor()
        with Worker() as worker:
            chosen, threads = device, settings.threads or default_threads()
            return worker.call(lambda: probe(chosen, threads)).to_json(), []
    except Lfm2ggufError as error:
        return None, [f"not probed: {error}"]


def _subject(
    outcome: Outcome,
    *,
    name: str,
    via: str,
    machine: str,
    file: GGUFFile | None,
    described: dict[str, Any] | None,
    device: dict[str, Any] | None,
    probes: dict[str, Any] | None,
    notes: list[str],
) -> Subject:
    rows = outcome.rows
    if file is not None and probes is not None:
        rows = [_beside_roofline(row, file, probes["bandwidth"]) for row in rows]
    return Subject(
        name, via, machine, tuple(rows), outcome.left_out, tuple(notes), described, device, probes
    )


def _beside_roofline(row: Row, file: GGUFFile, bandwidth: float) -> Row:
    """Add the decode speed that the bandwidth allows; one request's, so not for several."""
    decode = row.metrics.get("decode")
    if decode is None or row.concurrency > 1 or "prompt_tokens" not in row.metrics:
        return row
    depth = row.metrics["prompt_tokens"].median + row.metrics["output_tokens"].median / 2
    limit = roofline(file, bandwidth, round(depth))
    return replace(row, roofline=limit, share=decode.median / limit)
