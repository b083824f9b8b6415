"""Damaged and hostile images and sounds to small random projectors."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.mutation import changed_bytes
from tests.making import multimodal, sounds

SIDES = (0, 1, 2**24, 2**31 - 1, 2**32 - 1, 65536)


def _png(width: int, height: int) -> bytes:
    """Return a black picture, which packs into little however large it is."""
    packer, row = zlib.compressobj(9), bytes(1 + width * 3)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
             for n, d in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0xF0, 0, 0) + bytes(6)
    image = struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"
    return b"GIF89a" + screen + b"," + image


def _bmp(width: int, height: int, bits: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 66, 0, 0, 54) + info + bytes(200)


def _wav(draw: random.Random) -> bytes:
    rate = draw.choice([0, 1, 7, 8000, 16000, 44100, 384000, 2**31, 2**32 - 1])
    channels, kind = draw.choice([0, 1, 2, 255, 65535]), draw.choice([0, 1, 3, 6, 7, 17, 65534])
    bits, data = draw.choice([0, 1, 8, 12, 16, 24, 32, 64, 65535]), draw.randbytes(
        draw.choice([0, 1, 100, 8000, 64000]))  # fmt: skip
    align = draw.choice([channels * bits // 8 % 65536, 0, 1, 65535])
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * align % 2**32, align, bits)
    said = draw.choice([len(data), len(data), 0, 2**31, 2**32 - 1, 7])
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", said) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _flac(draw: random.Random) -> bytes:
    rate, samples = draw.choice([16000, 1, 655350]), draw.choice([0, 1, 2**36 - 1, 16000])
    fields = rate << 44 | draw.choice([0, 7]) << 41 | draw.choice([7, 15, 31]) << 36 | samples
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + fields.to_bytes(8, "big") + bytes(16)
    return b"fLaC\x80\0\0\x22" + info + draw.randbytes(draw.choice([0, 100, 5000]))


def _mp3(draw: random.Random) -> bytes:
    frame = b"\xff\xfb\x90\x00" + draw.randbytes(413)
    whole = [frame * draw.choice([1, 3, 20]), b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + frame, sounds.mp3(9),
             changed_bytes(frame * 5, draw)]  # fmt: skip
    return draw.choice(whole)


def _sides(draw: random.Random) -> bytes:
    raw = _png(8, 8)
    return raw[:16] + struct.pack(">II", draw.choice(SIDES), draw.choice(SIDES)) + raw[24:]


def _random(draw: random.Random) -> bytes:
    starts = [b"", b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"fLaC", b"ID3", b"#EXTM3U\n", b"<svg",
              b"\x1a\x45\xdf\xa3", b"\0\0\0\x18ftypmp42", b"P6\n9 9\n255\n", b"OggS"]  # fmt: skip
    return draw.choice(starts) + draw.randbytes(draw.choice([0, 1, 10, 1000]))


MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    "png-cut": lambda d: _png(64, 64)[: d.randrange(100)],
    "png-bytes": lambda d: changed_bytes(_png(40, 30), d),
    "png-sides": _sides,
    "png-large": lambda d: _png(*d.choice(
        [(1, 4000), (4000, 1), (3000, 2), (6000, 5500), (8000, 8000), (16000, 100), (1, 60000)])),
    "gif": lambda d: _gif(d.choice([0, 1, 65535]), d.choice([0, 1, 65535])),
    "gif-bytes": lambda d: changed_bytes(_gif(10, 10), d),
    "bmp": lambda d: _bmp(d.choice([0, 1, -1, 2**31 - 1, 30000]), d.choice([1, -1, -(2**31)]),
                          d.choice([1, 4, 8, 16, 24, 32, 0, 255])),
    "bmp-bytes": lambda d: changed_bytes(_bmp(4, 4, 24), d),
    "wav": _wav,
    "wav-bytes": lambda d: changed_bytes(sounds.wav(sounds.sound(0.5)), d, 64),
    "flac": _flac,
    "mp3": _mp3,
    "random": _random,
}  # fmt: skip


def prepare(base: Path) -> None:
    """Make a vision and an audio model, text model and projector."""
    from lfm2gguf import convert

    if (base / "audio-mmproj.gguf").exists():
        return
    for name, case in (("vision", multimodal.IMAGE_CASE), ("audio", sounds.AUDIO_CASE)):
        source = multimodal.make_multimodal(case, base / f"LFM2-{name}")
        convert(source, base / f"{name}.gguf", "F32", jobs=1)
        convert(source, base / f"{name}-mmproj.gguf", "F32", projector=True, jobs=1)


def make(draw: random.Random, base: Path, folder: Path) -> str:
    """Write a file."""
    kind = draw.choice(list(MAKERS))
    (folder / "medium").write_bytes(MAKERS[kind](draw))
    return kind


def check(base: Path, folder: Path) -> str:
    """Show it to the one, and let the other hear it."""
    from lfm2gguf import Lfm2ggufError, Runner

    data, seen = (folder / "medium").read_bytes(), set()
    for name, kind in (("vision", "image"), ("audio", "audio")):
        if name not in _runners:
            files = base / f"{name}.gguf", base / f"{name}-mmproj.gguf"
            _runners[name] = Runner(
                files[0], mmproj=files[1], context=2048, parallel=1, threads=1, device="cpu"
            )
        content = [{"type": kind, kind: data}, {"type": "text", "text": "?"}]
        try:
            _runners[name].chat([{"role": "user", "content": content}], max_tokens=1)
            seen.add("ok")
        except Lfm2ggufError:
            seen.add("refused")
    return " and ".join(sorted(seen))


_runners: dict[str, Any] = {}
