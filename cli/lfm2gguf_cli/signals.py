"""What Ctrl-C and SIGTERM do while a command runs, and before and after it."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib import _bootstrap
from types import FrameType

TIDYING = 5.0  # seconds that tidying up may take before a signal that comes again ends it


def interrupt_by(before: object, after: object) -> None:
    """Change what Ctrl-C does, where it does ``before``: who ignores it goes on doing so.

    Until the command begins it ends the process at once: there is nothing to tidy up.
    """
    if signal.getsignal(signal.SIGINT) is before:
        with _held_back(signal.SIGINT):
            signal.signal(signal.SIGINT, after)  # type: ignore[arg-type]


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Let a signal come only when its handler has been changed.

    One that Python has taken for a handler of its own, and that is SIG_DFL when it would be called,
    is dropped: "ignored due to race condition".
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_ended = -TIDYING  # when a signal last ended what ran
_number = 0  # which one
_put_off: dict[int, threading.Timer] = {}  # by number, what sends a signal again


def stop(signal_number: int, frame: FrameType | None, code: int | None = None) -> None:
    """End the command by way of every finally, so that partial files are removed.

    Ctrl-C is a KeyboardInterrupt; others exit with ``code``, or with 128 and the signal's number.

    An import is left to its end: inside of it the exception would be lost, since modules in C
    make an ImportError of it (NumPy's import_array). So is what C code calls back, which must
    return to it. Where else Python drops the exception, see :func:`heard_again`.

    A signal that comes again does not end what the first one's exception has begun to tidy up.
    """
    global _ended, _number
    if _is_tidying() and time.monotonic() < _ended + TIDYING:
        return
    if _is_lost(frame):
        _signal_soon(signal_number)
        return
    _ended, _number = time.monotonic(), signal_number
    if signal_number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + signal_number if code is None else code)


@contextlib.contextmanager
def heard_again() -> Iterator[None]:
    """Send a signal again whose exception is dropped: in ``__del__``, or by a weak reference."""
    before = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if _number and isinstance(what.exc_value, KeyboardInterrupt | SystemExit):
            _signal_soon(_number)
        else:
            before(what)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before


def forget_put_off() -> None:
    """Send none again: where everything is tidied up, one would find what Ctrl-C does by default.

    Several that were put off, as in a load of weights, are each sent again.
    """
    for again in list(_put_off.values()):
        again.cancel()
        again.join()  # if it was about to, it has


def has_stopped() -> bool:
    """Whether a signal has ended what ran."""
    return _ended > 0


def _is_tidying() -> bool:
    """Whether the exception of a signal is being handled, such as by a finally."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return True
        error = error.__context__
    return False


def _is_lost(frame: FrameType | None) -> bool:
    """Whether an exception raised here would not reach the command."""
    while frame is not None:
        if frame.f_globals is vars(_bootstrap) or frame.f_code.co_name.endswith("_from_c"):
            return True
        frame = frame.f_back
    return False


def _signal_soon(signal_number: int) -> None:
    again = threading.Timer(0.02, _signal_again, [signal_number])
    again.daemon = True
    again.start()
    if before := _put_off.get(signal_number):
        before.cancel()
    _put_off[signal_number] = again


def _signal_again(signal_number: int) -> None:
    if hasattr(signal, "pthread_kill") and (main := threading.main_thread().ident):
        signal.pthread_kill(main, signal_number)  # wakes it where it waits
    else:
        _thread.interrupt_main(signal.Signals(signal_number))
