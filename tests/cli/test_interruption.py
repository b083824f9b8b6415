"""A conversion that is interrupted, killed or out of room: nothing half-written, nobody left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.make_checkpoint import shapes
from tests.cli.command import COMMAND
from tests.making.checkpoints import config, save, tokenizer, write_json
from tests.making.models import tiny_gguf
from tests.making.native import build, needs_compiler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
TYPES = ["Q5_K_M", "Q4_K_M", "Q6_K"]  # work for some seconds
# Worker processes are NumPy's; of compiled kernels' threads see conversion/test_compiled.py.
PROCESSES = {**os.environ, "LFM2GGUF_KERNELS": "numpy"}
PATIENCE = 30.0  # seconds until something that must happen counts as not happening


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of enough weights for two workers."""
    folder = tmp_path_factory.mktemp("long") / "LFM2-Long"
    folder.mkdir()
    about = config(hidden_size=1024, intermediate_size=6144, num_attention_heads=16)
    pool = np.random.default_rng(0).normal(0, 0.02, 1 << 20).astype(np.float32)
    save(folder, {name: np.resize(pool, shape) for name, shape in shapes(about).items()})
    write_json(folder / "config.json", about)
    for name, content in tokenizer().items():
        write_json(folder / name, content)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty folder to write to."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def command(source: Path, target: Path) -> list[str]:
    types = [word for type in TYPES for word in ("-t", type)]
    return [*COMMAND, "convert", str(source), "-o", str(target), "--jobs", "2", *types]


@contextlib.contextmanager
def converting(source: Path, target: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A conversion that is under way, and its workers."""
    with subprocess.Popen(
        command(source, target),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=PROCESSES,
    ) as process:
        try:
            assert process.stderr is not None
            assert "%" in process.stderr.readline()
            assert list(target.glob("*.partial"))
            workers = children(process.pid)
            assert len(workers) == 2
            yield process, workers
        finally:
            process.kill()
    assert wait_until(lambda: not any(map(is_running, workers)))


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def said_at_the_end(process: subprocess.Popen[str]) -> str:
    """What follows the lines of progress."""
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    return "\n".join(line for line in lines if "weights/s" not in line).strip()


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0003, 0.003, 0.1])
@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_again_and_again(long: Path, target: Path, jobs: int, gap: float) -> None:
    """A key that is held down, or a hand that is not patient: what is tidied up goes on."""
    words = command(long, target)
    words[words.index("--jobs") + 1] = str(jobs)
    for _ in range(3):  # before, one in six left a file behind
        with subprocess.Popen(
            words, stderr=subprocess.PIPE, text=True, start_new_session=True, env=PROCESSES
        ) as process:
            assert process.stderr is not None
            assert "%" in process.stderr.readline()
            for _ in range(5):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
                time.sleep(gap)
            said = process.stderr.read()
            # the interpreter's own end no longer waits for anything
            assert process.wait(PATIENCE) in (130, -signal.SIGINT), said
        assert "Traceback" not in said
        assert not list(target.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("to", ["the parent", "everybody"])  # kill, and Ctrl-C on a terminal
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_interrupted(long: Path, target: Path, number: signal.Signals, code: int, to: str) -> None:
    with converting(long, target) as (process, workers):
        (os.kill if to == "the parent" else os.killpg)(process.pid, number)
        assert process.wait(PATIENCE) == code
        assert not any(map(is_running, workers))
        assert not list(target.iterdir())
        assert said_at_the_end(process) in ("", "lfm2gguf: interrupted")


STARTED = """
import runpy, sys
print("started", file=sys.stderr, flush=True)
runpy.run_module("lfm2gguf_cli.main", run_name="__main__")
"""


@pytest.mark.parametrize("delay", [0.1, 0.25, 0.35, 0.45, 0.6])
def test_interrupted_while_it_starts(
    long: Path, target: Path, delay: float, tmp_path: Path
) -> None:
    """From when Python itself is up: before that, its own start-up fails with exit code 1."""
    (tmp_path / "start.py").write_text(STARTED)
    arguments = [sys.executable, str(tmp_path / "start.py"), *command(long, target)[len(COMMAND) :]]
    with subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, start_new_session=True, env=PROCESSES
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "started\n"
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) in (130, -signal.SIGINT)
        said = said_at_the_end(process)
    assert not list(target.iterdir())
    # Nothing of the workers: what they run is no file. Of the command itself Python may tell, where
    # the signal came before its own handler.
    assert 'Traceback (most recent call last):\n  File "<string>"' not in said


RACE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
    int (*real)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    struct sigaction now;
    real(number, 0, &now);
    if (number == SIGINT && new && new->sa_handler == SIG_DFL && now.sa_handler != SIG_DFL)
        raise(SIGINT);
    return real(number, new, old);
}
"""


@needs_compiler
def test_interrupted_while_what_ctrl_c_does_changes(tmp_path: Path) -> None:
    """CPython looks for signals, and then changes the handler: one between the two was lost."""
    build(tmp_path / "race.so", RACE)
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / "race.so")}
    words = [*COMMAND, "--version"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


IMPORTING = """
import os, runpy, sys, time

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "lfm2gguf.conversion":
            try:
                os.kill(os.getpid(), {number})
                time.sleep(0.1)
            except BaseException:
                pass

sys.meta_path.insert(0, Finder())
runpy.run_module("lfm2gguf_cli.main", run_name="__main__")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_an_import_that_loses_exceptions(
    wide: Path, target: Path, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """As NumPy's import_array and weak references' callbacks do."""
    (tmp_path / "start.py").write_text(IMPORTING.format(number=int(number)))
    arguments = [sys.executable, str(tmp_path / "start.py"), *command(wide, target)[len(COMMAND) :]]
    done = subprocess.run(arguments, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code, done.stderr
    assert not list(target.iterdir())


DROPPING = """
import os, runpy, sys, time
from lfm2gguf.checkpoint import Checkpoint

class Dropping:
    def __del__(self):
        os.kill(os.getpid(), {number})
        time.sleep(0.1)

opened = Checkpoint.open
def open(*arguments):
    Dropping()
    time.sleep(0.1)
    return opened(*arguments)
Checkpoint.open = open
runpy.run_module("lfm2gguf_cli.main", run_name="__main__")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_where_python_drops_exceptions(
    wide: Path, target: Path, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """In ``__del__``: the command said "Exception ignored", went on, and exited with 0."""
    (tmp_path / "start.py").write_text(DROPPING.format(number=int(number)))
    arguments = [sys.executable, str(tmp_path / "start.py"), *command(wide, target)[len(COMMAND) :]]
    done = subprocess.run(arguments, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code, done.stderr
    assert "ignored" not in done.stderr
    assert not list(target.iterdir())


PUT_OFF = """
import atexit, os, runpy, signal, sys, time
from lfm2gguf.checkpoint import Checkpoint

def interrupted_from_c():
    os.kill(os.getpid(), {number})

def interrupted(*arguments):
    interrupted_from_c()
    os.kill(os.getpid(), {number})
    time.sleep(10)

Checkpoint.open = interrupted
atexit.register(time.sleep, 0.2)
runpy.run_module("lfm2gguf_cli.main", run_name="__main__")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_was_put_off_does_not_come_when_all_is_over(
    wide: Path, target: Path, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Ctrl-C pressed twice: the process ended by the signal, though it had its exit code."""
    (tmp_path / "start.py").write_text(PUT_OFF.format(number=int(number)))
    arguments = [sys.executable, str(tmp_path / "start.py"), *command(wide, target)[len(COMMAND) :]]
    done = subprocess.run(arguments, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (code, "")


def test_killed(long: Path, wide: Path, target: Path) -> None:
    """Nothing has the final name, and the workers go; what is left goes with the next run."""
    with converting(long, target) as (process, workers):
        process.kill()
        process.wait(PATIENCE)
        assert wait_until(lambda: not any(map(is_running, workers)))
        assert not list(target.glob("*.gguf"))
        assert len(list(target.glob("*.partial"))) == len(TYPES)
    done = subprocess.run([*COMMAND, "convert", str(wide), "-qo", str(target)])
    assert done.returncode == 0
    assert [path.suffix for path in target.iterdir()] == [".gguf"]


@pytest.mark.slow
def test_a_worker_killed(long: Path, target: Path) -> None:
    with converting(long, target) as (process, workers):
        os.kill(workers[1], signal.SIGKILL)
        assert process.wait(PATIENCE) == 2
        said = said_at_the_end(process)
        assert said.startswith("lfm2gguf: a worker process ended with code -9")
        assert "\n" not in said
        assert not list(target.iterdir())
        assert not is_running(workers[0])


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own with room for two megabytes."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small disk with")
    if done.returncode:
        pytest.skip("only root may mount a small disk to fill")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def convert_onto(disk: Path, source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [*COMMAND, "convert", str(source), "-qo", str(disk), *options]
    return subprocess.run(words, capture_output=True, text=True)


def test_a_full_disk(long: Path, full: Path) -> None:
    done = convert_onto(full, long)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no space left on the disk" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(full.iterdir())


def test_a_disk_with_room_for_the_first_file_only(wide: Path, full: Path) -> None:
    done = convert_onto(full, wide, "-t", "Q4_0", "-t", "F32")
    assert done.returncode == 2
    assert "F32.gguf: no space left" in done.stderr
    assert not list(full.iterdir())


def test_a_limit_on_the_size_of_files(long: Path, target: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs limits as POSIX has them")
    done = subprocess.run(
        [*COMMAND, "convert", str(long), "-qo", str(target)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert done.returncode == 2
    assert "cannot be written (File too large)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(target.iterdir())


LONG_TEXT = '{"type": "string", "minLength": 400}'  # so that an answer does not end before a signal
CALLED_BACK = """
import logging, os, runpy, sys, time

class Handler(logging.Handler):
    def emit(self, record):
        if {words!r} in record.getMessage() and not self.formatter:
            self.formatter = logging.Formatter()  # once
            os.kill(os.getpid(), {number})
            time.sleep(0.005)

log = logging.getLogger("lfm2gguf.llamacpp")
log.setLevel(logging.DEBUG)
log.addHandler(Handler())
log.propagate = False
runpy.run_module("lfm2gguf_cli.main", run_name="__main__")
"""


@pytest.mark.parametrize("words", ["load_tensors", "llama_context: n_ctx"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_what_c_calls_back(
    number: signal.Signals, code: int, words: str, tmp_path: Path
) -> None:
    """ctypes prints an exception that is raised there, and the command would go on."""
    (tmp_path / "start.py").write_text(CALLED_BACK.format(number=int(number), words=words))
    arguments = [sys.executable, str(tmp_path / "start.py"), "run", str(tiny_gguf()), "--no-trial",
                 "--device", "cpu", "-p", "Hi", "--json-schema", LONG_TEXT]  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == code, done.stderr
    assert "ctypes" not in done.stderr
