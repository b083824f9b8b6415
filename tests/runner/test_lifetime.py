"""Closing, forking and interrupting a Runner."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from lfm2gguf.errors import Lfm2ggufError, RuntimeFailureError
from lfm2gguf.runner import Runner
from tests.making.models import tiny_gguf
from tests.making.runners import GREEDY, endless, fresh, get_time, wait_until


def test_the_very_first_prompt_may_be_a_single_token() -> None:
    with fresh() as lfm:
        assert lfm.complete([lfm.tokens.bos], max_tokens=1).usage.prompt_tokens == 1


def test_a_runner_goes_to_no_other_process() -> None:
    with fresh() as lfm:
        for copied in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be sent to another process: open one"):
                copied(lfm)


def test_closing_twice_and_using_what_is_closed() -> None:
    lfm = fresh()
    lfm.close()
    lfm.close()
    uses: list[Any] = [
        lambda: lfm.chat("Hi"),
        lambda: lfm.stream("Hi"),
        lambda: lfm.batch(["Hi"]),
        lambda: lfm.run_tools("Hi", [get_time]),
        lambda: asyncio.run(lfm.achat("Hi")),
        lambda: asyncio.run(lfm.arun_tools("Hi", [get_time])),
        lambda: lfm.complete("x"),
        lambda: lfm.embed("x"),
        lambda: lfm.count_tokens("Hi"),
        lambda: lfm.tokenize("x"),
        lambda: lfm.token_bytes(1),
    ]
    for use in uses:
        with pytest.raises(RuntimeFailureError, match="closed"):
            use()


def test_closing_ends_requests_under_way() -> None:
    lfm = fresh(context=8192)
    stream = lfm.stream("Hi", logit_bias=endless(lfm))
    pieces = iter(stream)
    next(pieces)
    threading.Thread(target=lfm.close).start()
    with pytest.raises(RuntimeFailureError, match="closed"):
        list(pieces)


def test_many_runners_and_one_that_is_forgotten() -> None:
    runners = [fresh(context=256) for _ in range(3)]
    assert len({r.chat("Hi", max_tokens=4, **GREEDY).text for r in runners}) == 1
    thread = runners[0].scheduler.thread
    runners[1].close()
    runners[2].close()
    del runners
    gc.collect()
    wait_until(lambda: not thread.is_alive())


def _in_child(lfm: Runner, results: Any) -> None:
    try:
        lfm.chat("Hi")
    except Lfm2ggufError as error:
        results.put(str(error))
    lfm.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own() -> None:
    context = multiprocessing.get_context("fork")
    with fresh() as lfm:
        results = context.Queue()
        child = context.Process(target=_in_child, args=(lfm, results))
        child.start()
        assert "forked" in results.get(timeout=30)
        child.join(30)
        assert child.exitcode == 0
        assert lfm.chat("Hi", max_tokens=2).usage.completion_tokens <= 2


INTERRUPTED = """
import os, signal, sys, threading, time
from lfm2gguf.runner import Runner
with Runner(sys.argv[1], device="cpu", threads=1, context=8192) as lfm:
    seen = []
    def watch():
        running = lfm.scheduler.queue.running
        while not (running and 0 < running[0].prefilled < len(running[0].prompt)):
            time.sleep(0.001)
        seen.append(running[0])
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=watch, daemon=True).start()
    try:
        lfm.chat("word " * 4000, max_tokens=1)
    except KeyboardInterrupt:
        (request,) = seen
        print(request.cancelled, request.prefilled < len(request.prompt), request.generated)
    print(lfm.chat("Hi", max_tokens=3).usage.completion_tokens <= 3, lfm.scheduler.queue.running)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_an_interrupt_in_the_middle_of_prefill_leaves_the_runner_usable() -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tiny_gguf())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout == "True True []\nTrue []\n"
    assert done.returncode == 0


SILENT = """
import sys
from lfm2gguf.runner import Runner
from lfm2gguf.errors import OptionError
with Runner(sys.argv[1], device="cpu", threads=1, context=256) as lfm:
    lfm.chat("Hi", max_tokens=1, grammar='root ::= "a"')
    for bad in ("root ::= (", 'root ::= nobody', "root ::= \\"a", 'start ::= "a"'):
        try:
            lfm.chat("Hi", grammar=bad)
        except OptionError as error:
            print(str(error).count("\\n"), error)
    print(file=sys.stderr, end="still there")
"""


def test_c_is_silent_and_its_words_are_in_the_error() -> None:
    command = [sys.executable, "-c", SILENT, str(tiny_gguf())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "still there"
    said = done.stdout.splitlines()
    assert len(said) == 4
    assert all(line.startswith("0 grammar: it does not parse: ") for line in said)
    assert "expecting" in said[0]
    assert "nobody" in said[1]
