"""Texts that people name in an option or an argument: the one place that reads them."""

from __future__ import annotations

import os
from pathlib import Path

from lfm2gguf.errors import OptionError

LARGEST = 1 << 30  # bytes
SMALL = 1 << 26  # of what is parsed as a whole: tools, schemas, keys, reports


def read_text_file(
    path: str | Path, what: str, *, largest: int = LARGEST, encoding: str = "utf-8-sig"
) -> str:
    """Read a UTF-8 file whole; a byte-order mark is not part of the text.

    ``what`` says what it is to be, such as ``--tools``. Pipes are read as well.

    Raises:
        OptionError: it is missing, a folder, not UTF-8, or larger than ``largest`` bytes.

    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # a pipe's is 0
            data = file.read((size or largest) + 1) if size <= largest else b""
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise OptionError(f"{path}: {what} cannot be read ({why}); name another file") from error
    except ValueError as error:  # a null byte in the name
        raise OptionError(f"{path!r}: {what} is no file's name; name a file") from error
    if max(size, len(data)) > largest:
        raise OptionError(f"{path}: {what} has more than {largest >> 20} MiB; give a part of it")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{path}: {what} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from error
