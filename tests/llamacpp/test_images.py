"""What reaches libmtmd of a client's bytes, and how large it may become."""

from __future__ import annotations

import contextlib
import struct
import zlib

import pytest

from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp.images import MOST_PIXELS, check_medium
from tests.making.multimodal import image, png
from tests.making.sounds import flac, mp3, sound, wav


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of any chunks behind its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), *chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(width: int, height: int, scans: int = 1) -> bytes:
    frame = b"\xff\xc2\0\x11\x08" + struct.pack(">HH", height, width) + b"\x03" + bytes(9)
    return b"\xff\xd8\xff\xe0\0\x04xy" + frame + b"\xff\xda\0\x08" * scans + b"\xff\xd9"


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIii", 66, 0, 0, 54, 40, width, height) + bytes(40)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(20)


PLAYLIST = b"#EXTM3U\n#EXTINF:1.0,\nhttp://127.0.0.1:1/x.ts\n#EXT-X-ENDLIST\n"
ZEROS = zlib.compress(bytes(10 << 20))
OTHERS = {
    "a playlist": PLAYLIST,
    "a film": b"\0\0\0\x18ftypmp42" + bytes(100),
    "WebP": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(100),
    "a TGA": bytes(2) + b"\x02" + bytes(9) + b"\x08\0\x08\0\x18\0" + bytes(200),
    "a PNM": b"P6\n1 1\n255\nabc",
    "a PSD": b"8BPS\0\x01" + bytes(100),
    "Radiance": b"#?RADIANCE\n\n-Y 1 +X 1\n" + bytes(4),
    "Ogg": b"OggS" + bytes(100),
    "an address": b"concat:/etc/passwd|/etc/hosts",
    "too short for a sound": b"ID3",
    "Apple's PNG": png_of(1, 1, (b"CgBI", bytes(4)), (b"IDAT", zlib.compress(bytes(4)))),
}
TOO_LARGE = {
    "PNG": png_of(16000, 16000),
    "PNG of one pixel that holds 10 MiB": png_of(1, 1, (b"IDAT", ZEROS)),
    "the same in pieces": png_of(1, 1, *((b"IDAT", bytes([b])) for b in ZEROS)),
    "JPEG": jpeg(65535, 65535),
    "JPEG of a thousand scans": jpeg(5000, 5000, 1000),
    "JPEG whose second frame is the large one": jpeg(8, 8)[:-2] + jpeg(65535, 65535)[8:],
    "BMP": bmp(30000, -30000),
    "GIF": gif(65535, 65535),
    "no pixels": gif(0, 5),
}


@pytest.mark.parametrize("what", OTHERS)
def test_only_what_is_documented_is_passed_on(what: str) -> None:
    with pytest.raises(OptionError, match="can decode"):
        check_medium(OTHERS[what])


@pytest.mark.parametrize("what", TOO_LARGE)
def test_sizes_are_read_before_anything_is_decoded(what: str) -> None:
    with pytest.raises(OptionError, match=r"pixels|more than its size|scans"):
        check_medium(TOO_LARGE[what])


@pytest.mark.parametrize(
    "data",
    [
        png(image()),
        png_of(5000, 6000, (b"IDAT", zlib.compress(bytes(100)))),
        jpeg(6000, 4000, 10),
        bmp(30, 20),
        gif(30, 20),
        wav(sound()),
        flac(16000),
        mp3(3),
    ],
    ids=["PNG", "large PNG", "JPEG", "BMP", "GIF", "WAV", "FLAC", "MP3"],
)
def test_the_formats_are_taken(data: bytes) -> None:
    check_medium(data)
    for length in range(0, len(data), max(1, len(data) // 50)):  # cut off: refused, or taken
        with contextlib.suppress(OptionError):
            check_medium(data[:length])


def test_the_bound_is_that_of_pixels() -> None:
    check_medium(gif(8192, MOST_PIXELS // 8192))
    with pytest.raises(OptionError, match="8192 x 4097 pixels"):
        check_medium(gif(8192, MOST_PIXELS // 8192 + 1))
