"""Types that are asked for by name, before the mixture: llama-quantize's options.

``--pure``, ``--leave-output-tensor``, ``--output-tensor-type``, ``--token-embedding-type`` and
``--tensor-type`` of tools/quantize/quantize.cpp, llama.cpp commit 0c1e57098.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lfm2gguf.errors import OptionError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.quants import CODECS
from lfm2gguf.text_file import SMALL, read_text_file


@dataclass(frozen=True)
class Overrides:
    """What the mixture is told.

    Args:
        pure: every tensor in the file's default type.
        leave_output: ``output.weight`` stays as it is.
        output: the type of ``output.weight``, and of a tied embedding.
        token_embedding: the type of ``token_embd.weight``.
        patterns: types for the tensors whose names they are found in; the first that is holds.

    """

    pure: bool = False
    leave_output: bool = False
    output: GGMLType | None = None
    token_embedding: GGMLType | None = None
    patterns: tuple[tuple[re.Pattern[str], GGMLType], ...] = ()

    def of_embedding_or_output(self, name: str) -> GGMLType | None:
        """Return the type that an option names for the embedding or the output."""
        named = {"token_embd.weight": self.token_embedding, "output.weight": self.output}
        return named.get(name)

    def names(self, name: str) -> bool:
        """Whether a tensor's type is asked for by its name."""
        named = self.of_embedding_or_output(name) or self.of_pattern(name)
        return named is not None or (self.leave_output and name == "output.weight")

    def of_pattern(self, name: str) -> GGMLType | None:
        """Return the type of the first pattern found in a name."""
        return next((type for pattern, type in self.patterns if pattern.search(name)), None)


def parse_tensor_type(name: str | GGMLType, option: str) -> GGMLType:
    """Return the tensor type of a name, in any case.

    Raises:
        OptionError: it is unknown, or cannot be written; the message has the nearest one.

    """
    if isinstance(name, GGMLType) and name in CODECS:
        return name
    text = name.name if isinstance(name, GGMLType) else name.strip().upper()
    names = [type.name for type in CODECS]
    if text in names:
        return GGMLType[text]
    near = max(names, key=lambda known: difflib.SequenceMatcher(None, text, known).ratio())
    raise OptionError(
        f"{option}: unknown tensor type {text!r}; did you mean {near}? Known: {', '.join(names)}"
    )


def parse_patterns(
    patterns: Iterable[str], option: str
) -> tuple[tuple[re.Pattern[str], GGMLType], ...]:
    """Return patterns and types from ``REGEX=TYPE``; as in llama.cpp, REGEX in lower case.

    Raises:
        OptionError: one cannot be read.

    """
    return tuple(_pattern(text, option) for text in patterns)


def read_patterns(path: str | Path) -> tuple[str, ...]:
    """Return the ``REGEX=TYPE`` of a file, which white space separates.

    As tools/quantize/quantize.cpp, ``parse_tensor_type_file``.

    Raises:
        OptionError: it cannot be read as text.

    """
    what = "tensor_type_file (--tensor-type-file)"
    return tuple(read_text_file(path, what, largest=SMALL).split())


def _pattern(text: str, option: str) -> tuple[re.Pattern[str], GGMLType]:
    regex, equals, name = text.partition("=")
    if not (regex and equals and name):
        raise OptionError(f"{option}: {text!r} is not REGEX=TYPE, such as ffn_down=Q6_K")
    try:
        pattern = re.compile(regex.lower())
    except re.error as error:
        raise OptionError(
            f"{option}: {regex!r} is not a valid regular expression: {error}"
        ) from error
    return pattern, parse_tensor_type(name, option)
