"""Names beside the dots of a plot, where they cover neither dots nor each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 9.4, 16  # of a letter, of a name, in the drawing's units, as large as on a phone
PLACES = ((7, 4), (-1, 4), (7, -5), (7, 14), (-1, -6), (-1, 15))  # right of the dot, left of it ...


class Box(NamedTuple):
    """A part of the drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Say whether two parts overlap."""
        return (
            self.left < other.right and other.left < self.right
            and self.top < other.bottom and other.top < self.bottom
        )  # fmt: skip

    def holds(self, other: Box) -> bool:
        """Say whether another part lies within."""
        return (
            self.left <= other.left and other.right <= self.right
            and self.top <= other.top and other.bottom <= self.bottom
        )  # fmt: skip


def place(
    names: Sequence[str], at: Sequence[tuple[float, float]], taken: list[Box], frame: Box
) -> Iterator[tuple[str, float, float]]:
    """Yield names with the start of their baselines; one that finds no room is left out.

    ``taken`` grows by the room that they take.
    """
    for name, (x, y) in zip(names, at, strict=False):
        width = WIDTH * len(name)
        for dx, dy in PLACES:
            left = x + dx if dx > 0 else x - 7 - width
            box = Box(left, y + dy - HEIGHT + 3, left + width, y + dy + 2)
            if frame.holds(box) and not any(map(box.meets, taken)):
                taken.append(box)
                yield name, left, y + dy
                break
