"""When a grammar that binds a part of an answer applies.

llama.cpp's lazy grammars begin at a trigger word and go on to the answer's end (``common/
parsers/lfm2.cpp`` and ``grammar_should_apply`` in ``common/sampling.cpp`` at 0c1e57098). These
end where the part ends, so that text and another part may follow, and, as there, begin outside
of thinking only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LazyGrammar:
    """A grammar (GBNF, start symbol ``root``) of what stands behind ``start``, ``end`` included.

    ``thinking`` are the markers around what the grammar ignores; ``thinks`` says that the
    prompt has opened it already. With ``once`` the answer ends where its first part does.
    """

    text: str
    start: str
    end: str
    thinking: tuple[str, str]
    thinks: bool = False
    once: bool = False


class Watch:
    """Follows the text of an answer: ``applies`` says whether the grammar does."""

    def __init__(self, lazy: LazyGrammar) -> None:
        self._lazy = lazy
        self._text = ""  # the last characters, in which a marker may begin
        self._begins = not lazy.thinks
        self._thinks = lazy.thinks
        self.applies = False

    def follow(self, new: str) -> bool:
        """Take the text of a token; return whether a part has just ended."""
        self._text += new
        if self._begins:
            self._begin()
        if self._thinks:
            self._thinks = not self._met(self._lazy.thinking[1])
            return False
        if self.applies:
            self.applies = not self._met(self._lazy.end)
            return not self.applies
        # behind the marker within a token the grammar would come too late
        self.applies = self._met(self._lazy.start) and not self._text
        return False

    def _begin(self) -> None:
        start, think = self._text.lstrip(), self._lazy.thinking[0]
        waits = think.startswith(start) and start != think
        self._thinks = start.startswith(think)
        self._begins = waits

    def _met(self, marker: str) -> bool:
        before, met, rest = self._text.partition(marker)
        self._text = rest if met else before[-len(marker) :]
        return bool(met)
