"""From bytes to text: characters never cut in two, stop strings found across tokens."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


def held_back(text: str, markers: Sequence[str]) -> int:
    """Return how many of the last characters may be the beginning of a marker."""
    longest = max(map(len, markers), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(marker.startswith(tail) for marker in markers):
            return length
    return 0


def first_of(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """Return where the earliest marker begins, and which it is; the longest of two."""
    found = [(text.find(marker), -len(marker), marker) for marker in markers if marker in text]
    return (min(found)[0], min(found)[2]) if found else None


class TextStream:
    """Turns the bytes of tokens into text that may be shown.

    An unfinished character waits for its other bytes, and text that may turn out to be the
    beginning of a stop string waits until that is known. Bytes that never become UTF-8 come
    out as U+FFFD.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped: str | None = None  # the stop string that was met

    def feed(self, data: bytes) -> str:
        """Take the bytes of one token and return the text that is now certain."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """Return what was still held back: the answer ended without a stop string."""
        text = self._release(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _release(self, new: str) -> str:
        if not self._stop:
            return new
        if self.stopped is not None:
            return ""
        text = self._held + new
        met = first_of(text, self._stop)
        if met:
            self._held = ""
            self.stopped = met[1]
            return text[: met[0]]
        keep = len(text) - held_back(text, self._stop)
        self._held = text[keep:]
        return text[:keep]
