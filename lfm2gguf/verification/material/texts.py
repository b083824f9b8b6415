"""Texts to verify on, and how they become scored positions."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lfm2gguf.errors import HubError
from lfm2gguf.text_file import read_text_file

PASSAGE, QUERY = 512, 128  # characters of a passage, and of its beginning that is the query
WIKITEXT = "wikitext-2"
PYTHON = "python-docs"


@dataclass(frozen=True)
class Text:
    """A text and what the reports call it."""

    name: str
    content: str


@dataclass(frozen=True)
class Sample:
    """One sequence of tokens, computed by itself, and the positions that are scored.

    The logits at ``positions[i]`` are judged by the token that follows, ``targets[i]``.
    """

    ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.intp]

    @property
    def targets(self) -> npt.NDArray[np.int32]:
        """The tokens that follow the scored positions."""
        following: npt.NDArray[np.int32] = self.ids[self.positions + 1]
        return following


def load_texts(names: Sequence[str | Path]) -> list[Text]:
    """Read UTF-8 files; ``wikitext-2`` is fetched, ``python-docs`` is made.

    Raises:
        OptionError: a file cannot be read, or is not UTF-8.
        HubError: a download failed.

    """
    return [_load(name) for name in names]


def check_texts(names: Iterable[str | Path]) -> None:
    """Refuse files that cannot be read, before any work; what would be downloaded is passed over.

    Raises:
        OptionError: a file cannot be read, or is not UTF-8.

    """
    for name in names:
        if name != WIKITEXT:
            _load(name)


def _load(name: str | Path) -> Text:
    if name == WIKITEXT:
        return Text(WIKITEXT, _wikitext())
    if name == PYTHON:
        return Text(PYTHON, python_docs())
    return Text(Path(name).name, read_text_file(name, "the text", encoding="utf-8"))


def python_docs() -> str:
    """Build a text from the running Python's language reference: a smoke test.

    It needs no download, but differs between Python versions: figures on it compare only
    with figures of the same run.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        import builtins

        owners = [value for value in vars(builtins).values() if isinstance(value, type)]
        methods = [value for owner in owners for value in (owner, *vars(owner).values())]
        docs = {repr(value): getattr(value, "__doc__", None) or "" for value in methods}
        return "\n\n".join(docs[name] for name in sorted(docs))
    return "\n\n".join(topics[name] for name in sorted(topics))


def _wikitext() -> str:
    """Return the raw test split of WikiText-2, from the archive that llama.cpp's scripts fetch."""
    from huggingface_hub import hf_hub_download

    try:
        archive = hf_hub_download("ggml-org/ci", "wikitext-2-raw-v1.zip", repo_type="dataset")
        with zipfile.ZipFile(archive) as files:
            return files.read("wikitext-2-raw/wiki.test.raw").decode("utf-8")
    except Exception as error:  # the client raises many kinds; all mean the same here
        raise HubError(
            f"cannot fetch wikitext-2 from the Hub ({error}); download wiki.test.raw "
            "and give that file as a text (--text)"
        ) from error


def cut(ids: npt.NDArray[np.int32], ctx: int, chunks: int | None, bos: int | None) -> list[Sample]:
    """Cut a tokenized text as llama-perplexity does.

    Chunks of ``ctx`` tokens, the first of each replaced by BOS, the second half scored;
    what is left over at the end is not used. At most ``chunks`` of them (None: all).
    Source: tools/perplexity/perplexity.cpp, ``perplexity``, commit 0c1e57098.
    """
    count = len(ids) // ctx
    count = count if chunks is None else min(count, chunks)
    parts = ids[: count * ctx].reshape(count, ctx).copy()
    if bos is not None:
        parts[:, 0] = bos
    positions = np.arange(ctx // 2, ctx - 1)
    return [Sample(part, positions) for part in parts]


def passages(content: str, count: int | None) -> list[tuple[str, str]]:
    """Cut a text into queries and documents: the beginning and the rest of each passage.

    Passages are of equal length; what is left over is not used. At most ``count`` of them
    (None: all).
    """
    whole = len(content) // PASSAGE
    starts = range(0, PASSAGE * min(whole, whole if count is None else count), PASSAGE)
    parts = [content[start : start + PASSAGE] for start in starts]
    return [(part[:QUERY], part[QUERY:]) for part in parts]
