"""The duration that an audio file declares, checked before llama.cpp trusts it.

llama.cpp (``tools/mtmd/mtmd-helper.cpp`` and its miniaudio, commit 0c1e57098) makes room for all
samples at once, as many as the file's headers claim: where that is more than there is memory, the
process ends.
"""

from __future__ import annotations

import re
import struct

from lfm2gguf.errors import OptionError

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
STREAMINFO = re.compile(rb"fLaC[\0\x80]\0\0\x22.{10}(.{8})", re.DOTALL)  # RFC 9639, section 8.2
XING = re.compile(rb"(?=(?:Xing|Info)...(.)(.{4}))", re.DOTALL)
XING_PLACES = (13, 15, 21, 23, 36, 38)  # bytes behind an MP3 frame's start
SHORTEST_FRAME = 1152 / 48_000  # seconds of an MP3 frame


def declared_seconds(data: bytes) -> float:
    """Return how long a WAV, FLAC or MP3 file claims to be; 0 where it claims nothing.

    An MP3 file claims at least the returned time, and at most three times as much.

    Raises:
        OptionError: a WAV file's format is missing, or not PCM, float, A-law or mu-law.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return max(_wav(data), _mp3(data))
    return max(_flac(data), _mp3(data))


def _wav(data: bytes) -> float:
    """IBM and Microsoft, Multimedia Programming Interface and Data Specifications 1.0."""
    form, place = b"", 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        place += 8
        if name == b"data":
            held: int = min(size, len(data) - place)
            return held / _bytes_per_second(form)
        if name == b"fmt ":
            form = data[place : place + size]
        place += size + size % 2
    raise OptionError(f"the WAV file of {len(data)} bytes is damaged: it has no data chunk")


def _bytes_per_second(form: bytes) -> float:
    if len(form) < 16:
        raise OptionError("the WAV file is damaged: it has no format before its data")
    kind, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", form)
    if kind == EXTENSIBLE and len(form) >= 26:
        (kind,) = struct.unpack_from("<H", form, 24)
    if kind not in (PCM, FLOAT, A_LAW, MU_LAW):
        raise OptionError(f"a WAV file of format {kind}: PCM, float, A-law and mu-law are taken")
    if not (channels and 0 < rate <= 384_000 and align and 0 < bits <= 64):
        raise OptionError(
            f"the WAV file is damaged: {channels} channels of {rate} Hz with {bits} bits"
        )
    return float(rate * (align if bits % 8 else bits * channels // 8))


def _flac(data: bytes) -> float:
    longest = 0.0
    for match in STREAMINFO.finditer(data):
        fields = int.from_bytes(match[1], "big")  # 20 bits rate, 8 of format, 36 samples
        rate, samples = fields >> 44, fields & ((1 << 36) - 1)
        longest = max(longest, samples / max(rate, 1))
    return longest


def _mp3(data: bytes) -> float:
    """Return the frames that a Xing or Info tag in a frame's place counts."""
    frames = [0]
    for match in XING.finditer(data):
        starts = (match.start() - place for place in XING_PLACES)
        if match[1][0] & 1 and any(
            start >= 0 and data[start] == 0xFF and data[start + 1] >= 0xE0 for start in starts
        ):
            frames.append(int.from_bytes(match[2], "big"))
    return max(frames) * SHORTEST_FRAME
