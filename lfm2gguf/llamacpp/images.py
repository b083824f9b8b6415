"""What a client's bytes are, by the first of them, and how much memory an image would take.

libmtmd (``tools/mtmd/mtmd-helper.cpp``, commit 0c1e57098) hands what its own decoders refuse to
``ffprobe`` and ``ffmpeg``, if these are in the PATH, playlists included; and stb_image decodes
whatever size a file claims. So a file is looked at here, before either sees it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from lfm2gguf.errors import OptionError

MOST_PIXELS = 1 << 25  # 8192 x 4096
MOST_DECODED = 32 * MOST_PIXELS  # pixels that all scans of a progressive JPEG write together
# WAV, FLAC, MP3 with a tag or without: audio_helpers::is_audio_file, which wants 12 bytes
SOUND = re.compile(rb"(?=.{12})(?:RIFF....WAVE|fLaC|ID3|\xff[\xe0-\xff])", re.DOTALL)
# A frame header as stb_image takes it: its length is that of its 1, 3 or 4 components.
FRAME = re.compile(
    rb"\xff[\xc0-\xc2]\0(?:\x0b\x08(.{4})\x01|\x11\x08(.{4})\x03|\x14\x08(.{4})\x04)", re.DOTALL
)
SCAN = b"\xff\xda"

Size = tuple[int, int]


def check_medium(data: bytes) -> None:
    """Check that bytes are an image or a sound in a format that is taken, and an image's size.

    Raises:
        OptionError: they begin as none of the formats, or an image's headers are damaged or
            claim more than :data:`MOST_PIXELS`.

    """
    if SOUND.match(data):
        return
    found = next((entry for first, entry in _IMAGES.items() if data.startswith(first)), None)
    if found is None:
        raise OptionError(
            f"{len(data)} bytes are not an image or sound that llama.cpp can decode: images as "
            "PNG, JPEG, BMP or GIF, sound as WAV, MP3 or FLAC"
        )
    name, size_of = found
    try:
        check_size(*size_of(data))
    except (struct.error, zlib.error, ValueError) as error:
        raise OptionError(
            f"the {name} file of {len(data)} bytes is damaged ({error}): nothing that "
            "llama.cpp can decode"
        ) from None


def check_size(width: int, height: int) -> None:
    """Check that an image has pixels, and no more of them than are taken.

    Raises:
        OptionError: it has none, or more than :data:`MOST_PIXELS`.

    """
    if not 0 < width * height <= MOST_PIXELS:
        raise OptionError(
            f"the image has {width} x {height} pixels; 1 to {MOST_PIXELS} are taken: make it "
            "another size"
        )


def _png(data: bytes) -> Size:
    """PNG specification, third edition: section 5; what is packed is counted, too."""
    width, height = struct.unpack_from(">II", data, 16)
    check_size(width, height)
    # 16 bits in four channels, a byte before each row, and what seven passes round up
    _check_inflated(_packed(data), 8 * (width + 4) * (height + 8))
    return width, height


def _packed(data: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name == b"IEND":
            return
        if name == b"CgBI":
            raise ValueError("Apple's variant of the format")
        if name == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += length + 12


def _check_inflated(pieces: Iterator[bytes], most: int) -> None:
    unpacker, count = zlib.decompressobj(), 0
    for piece in pieces:
        rest = piece
        while rest and not unpacker.eof:
            count += len(unpacker.decompress(rest, 1 << 20))
            rest = unpacker.unconsumed_tail
            if count > most:
                raise ValueError("it holds more than its size")


def _jpeg(data: bytes) -> Size:
    """ITU-T T.81, B.2.2: the largest of all frames, whichever is decoded."""
    found = [
        struct.unpack(">HH", match[1] or match[2] or match[3]) for match in FRAME.finditer(data)
    ]
    if not found:
        raise ValueError("it has no frame")
    height, width = max(found, key=lambda size: size[0] * size[1])
    if width * height * data.count(SCAN) > MOST_DECODED:
        raise ValueError(f"it has {data.count(SCAN)} scans")
    return width, height


def _bmp(data: bytes) -> Size:
    """BITMAPCOREHEADER and BITMAPINFOHEADER; a height below zero is one from the top."""
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _gif(data: bytes) -> Size:
    """GIF89a, section 18: the logical screen, which frames have to lie in."""
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


_IMAGES: dict[bytes, tuple[str, Callable[[bytes], Size]]] = {  # by their first bytes
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR": ("PNG", _png),
    b"\xff\xd8\xff": ("JPEG", _jpeg),
    b"BM": ("BMP", _bmp),
    b"GIF87a": ("GIF", _gif),
    b"GIF89a": ("GIF", _gif),
}
