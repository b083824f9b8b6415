"""Images and sound in messages: found, read, encoded once, and given a place in the prompt.

In the prompt's tokens an embedding is a number below zero that belongs to it alone, made from the
medium's digest. So the memory of conversations works with media as it does with words: what a
sequence holds of an image need not be encoded or computed again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfm2gguf.chat.template import Message
from lfm2gguf.errors import OptionError
from lfm2gguf.llamacpp import Floats, Pixels, Projector, check_size

PLACE = "\ufdd1"  # a noncharacter around a medium's number: where it stands in a rendered prompt
PLACES = re.compile(f"{PLACE}(\\d+){PLACE}")
KINDS = {  # type of a part: where the medium lies in it
    "image": ("image", "path", "url"),
    "audio": ("audio", "path", "url"),
    "image_url": ("image_url",),
    "input_audio": ("input_audio",),
}
ENCLOSED = ("image_url", "input_audio")  # OpenAI's, which may come over a wire: never a path
ENCODED_BYTES = 256 << 20  # embeddings kept for media that come again
LARGEST = 64 << 20  # bytes of a file; an image's pixels: lfm2gguf/llamacpp/images.py

Medium = bytes | Pixels


class Encoded:
    """What stands for a medium in a prompt: its tokens, and the embeddings of those below zero."""

    def __init__(self, digest: bytes, parts: Sequence[list[int] | Floats]) -> None:
        self.tokens: list[int] = []
        self.rows: dict[int, Floats] = {}
        next_id = -(int.from_bytes(digest[:7], "big") << 16) - 1
        for part in parts:
            if isinstance(part, list):
                self.tokens += part
                continue
            ids = range(next_id, next_id - len(part), -1)
            self.rows.update(zip(ids, part, strict=True))
            self.tokens += ids
            next_id -= len(part)

        self.nbytes = sum(row.nbytes for row in self.rows.values())


class Encoder:
    """Encodes media, and remembers the latest. One thread drives it."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._known: OrderedDict[bytes, Encoded] = OrderedDict()

    def encode(self, medium: Medium) -> Encoded:
        """Return what stands for a medium.

        Raises:
            OptionError: it cannot be read.
        """
        key = _digest(medium)
        found = self._known.get(key) or Encoded(key, self._projector.encode(medium))
        self._known[key] = found
        self._known.move_to_end(key)
        while len(self._known) > 1 and self._nbytes > ENCODED_BYTES:
            self._known.popitem(last=False)
        return found

    @property
    def modalities(self) -> dict[str, bool]:
        """What can be encoded."""
        return {"vision": self._projector.sees, "audio": self._projector.hears}

    @property
    def _nbytes(self) -> int:
        return sum(encoded.nbytes for encoded in self._known.values())

    def close(self) -> None:
        """Free the projector."""
        self._projector.close()


def take_out(messages: Sequence[Message]) -> tuple[list[Message], list[Medium]]:
    """Return the messages with a place in the text for each medium, and the media.

    Raises:
        OptionError: a part cannot be read.
    """
    media: list[Medium] = []
    return [_without_media(message, media) for message in messages], media


def _without_media(message: Message, media: list[Medium]) -> Message:
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": content.replace(PLACE, "")} if PLACE in content else message
    if not isinstance(content, list | tuple) or not any(map(_kind, content)):
        return message
    texts = []
    for part in content:
        kind = _kind(part)
        if kind:
            texts.append(f"{PLACE}{len(media)}{PLACE}")
            media.append(_read(part, kind))
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            texts.append(part["text"].replace(PLACE, ""))
        else:
            raise OptionError(f"a part of a message must be text, an image or sound: {part!r:.80}")
    return {**message, "content": "".join(texts)}


def _kind(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    return kind if kind in KINDS else None


def _read(part: Mapping[str, Any], kind: str) -> Medium:
    value: Any = next((part[key] for key in KINDS[kind] if part.get(key) is not None), None)
    if value is None:
        raise OptionError(f"a part of type {kind!r} needs {' or '.join(KINDS[kind])}")
    if isinstance(value, Mapping):  # OpenAI's {"url": ...} and {"data": ..., "format": ...}
        data = value.get("data")
        value = f"data:;base64,{data}" if isinstance(data, str) else value.get("url")
    if isinstance(value, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", value):
        return _bounded(_from_url(value, kind), kind)
    if kind in ENCLOSED:
        raise OptionError(f"{kind}: give a data: URL or base64, or a part of type image or audio")
    if isinstance(value, bytes | bytearray | memoryview):
        return _bounded(bytes(value), kind)
    if isinstance(value, str | os.PathLike):
        return _bounded(_from_file(Path(value), kind), kind)
    if hasattr(value, "convert") and hasattr(value, "tobytes"):  # PIL.Image.Image
        picture: Any = value
        check_size(picture.width, picture.height)
        return Pixels(picture.width, picture.height, picture.convert("RGB").tobytes())
    raise OptionError(
        f"{kind}: {type(value).__name__} is not a path, bytes, a data: URL or a PIL image"
    )


def _from_url(url: str, kind: str) -> bytes:
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "data":
        raise OptionError(
            f"{kind}: nothing is fetched from {scheme}: addresses; give a path or a data: URL"
        )
    head, _, data = rest.partition(",")
    if not head.endswith(";base64"):
        raise OptionError(f"{kind}: the data: URL is not in base64")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise OptionError(f"{kind}: the base64 is damaged: {error}") from None


def _from_file(path: Path, kind: str) -> bytes:
    try:
        if not 0 < path.stat().st_size <= LARGEST:
            raise OptionError(f"{kind}: {path} is empty, or larger than {LARGEST >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise OptionError(f"{kind}: {path} cannot be read: {error.strerror}") from None


def _bounded(data: bytes, kind: str) -> bytes:
    if not 0 < len(data) <= LARGEST:
        raise OptionError(f"{kind}: it has {len(data)} bytes; 1 to {LARGEST >> 20} MiB are taken")
    return data


def _digest(medium: Medium) -> bytes:
    if isinstance(medium, bytes):
        return hashlib.sha256(medium).digest()
    return hashlib.sha256(b"%d x %d " % (medium.width, medium.height) + medium.data).digest()
