"""What the sequences of a context hold, and how a new prompt finds its beginning there.

LFM2's memory is hybrid: attention layers keep every position, convolution layers only their
last state. A sequence cannot simply be cut: going back needs a convolution state saved at that
point (160 KiB for LFM2-1.2B). Such marks are kept where conversations part: behind the system
prompt, and at the end of each prompt. Sequences that must make room go, whole, into a store of
bounded size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lfm2gguf.errors import RuntimeFailureError
from lfm2gguf.llamacpp import Context

MAX_MARKS = 8  # a sequence keeps its first mark and the latest ones
WORTH_KEEPING = 32  # tokens: shorter sequences are computed again sooner than stored

Variant = tuple[str, float] | None  # the LoRA adapter and its scale that computed a state


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at the beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # slices compare in C
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass
class Held:
    """Tokens whose state is at hand, and the points it can go back to."""

    tokens: list[int] = field(default_factory=list)
    marks: dict[int, bytes] = field(default_factory=dict)  # length -> convolution state
    variant: Variant = None

    def reach(self, prompt: Sequence[int], variant: Variant = None) -> int:
        """Return how much of a prompt this can provide; its last token is always computed."""
        if variant != self.variant:
            return 0
        common = common_prefix(self.tokens, prompt[:-1])
        if common == len(self.tokens):
            return common
        return max((at for at in self.marks if at <= common), default=0)

    def cut(self, length: int) -> None:
        """Forget what lies behind a point."""
        del self.tokens[length:]
        self.marks = {at: state for at, state in self.marks.items() if at <= length}

    @property
    def mark_bytes(self) -> int:
        """Bytes of the saved convolution states."""
        return sum(map(len, self.marks.values()))


@dataclass
class Slot(Held):
    """A sequence of the context: taken by a request, or idle and remembering the last one."""

    seq: int = 0
    taken: bool = False
    last_used: int = 0


@dataclass(eq=False)
class Stored(Held):
    """A whole sequence outside of the context."""

    state: bytes = b""

    @property
    def nbytes(self) -> int:
        """Bytes this takes: its state and its marks."""
        return len(self.state) + self.mark_bytes


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of saved states, and the tokens the context's sequences hold."""

    state_bytes: int
    state_bytes_limit: int
    stored_sequences: int
    held_tokens: int


class Memory:
    """The sequences of one context. Driven by one thread, as the context is."""

    def __init__(self, context: Context, limit: int) -> None:
        self._context = context
        self._limit = limit
        self._stored: list[Stored] = []  # least recently used first
        self._clock = 0
        self.slots = [Slot(seq=seq) for seq in range(context.n_seq_max)]

    @property
    def use(self) -> MemoryUse:
        """What is held now."""
        marks = sum(slot.mark_bytes for slot in self.slots)
        return MemoryUse(
            state_bytes=marks + sum(stored.nbytes for stored in self._stored),
            state_bytes_limit=self._limit,
            stored_sequences=len(self._stored),
            held_tokens=sum(len(slot.tokens) for slot in self.slots),
        )

    @property
    def idle(self) -> list[Slot]:
        """Slots no request has taken, least recently used first, empty ones before all."""
        free = (slot for slot in self.slots if not slot.taken)
        return sorted(free, key=lambda slot: (bool(slot.tokens), slot.last_used))

    def take(self, prompt: Sequence[int], variant: Variant = None) -> Slot:
        """Take an idle slot for a prompt; ``slot.tokens`` is the part it holds already.

        The longest known beginning is continued in place, shared with the slot that has it
        (also while that one is busy: no cell is copied), or brought back from the store.
        """
        holders: list[Held] = [*self.slots, *self._stored]
        source = max(holders, key=lambda held: held.reach(prompt, variant))
        length = source.reach(prompt, variant)
        slot = self._choose(source, length)
        self._clock += 1
        slot.taken, slot.last_used = True, self._clock
        if slot is not source:
            self.forget(slot)
            if length and not self._bring(source, slot, length):
                length = 0
        elif not _goes_on(source, length):
            self._keep(slot)
        self._rewind(slot, length)
        slot.variant = variant
        return slot

    def _choose(self, source: Held, length: int) -> Slot:
        """Return the source itself where the prompt goes on with it, else the slot least missed."""
        idle = self.idle
        if isinstance(source, Slot) and not source.taken and _goes_on(source, length):
            return source
        return next((slot for slot in idle if slot is not source or not length), idle[0])

    def _bring(self, source: Held, slot: Slot, length: int) -> bool:
        if isinstance(source, Slot):
            self._context.copy(source.seq, slot.seq, stop=length)
        elif isinstance(source, Stored) and not self._restore(source, slot, length):
            return False
        slot.tokens, slot.marks = list(source.tokens), dict(source.marks)
        return True

    def _restore(self, source: Stored, slot: Slot, length: int) -> bool:
        """Load a stored state, idle sequences making room for it; False if it has none."""
        if source in self._stored and _goes_on(source, length):
            self._stored.remove(source)  # it goes on in the slot
        while True:
            try:
                self._context.load_state(slot.seq, source.state)
            except RuntimeFailureError:
                if self.evict():
                    continue
                self._context.remove(slot.seq)
                return False
            return True

    def _rewind(self, slot: Slot, length: int) -> None:
        if length == len(slot.tokens):
            return
        if length:
            self._context.load_state(slot.seq, slot.marks[length], partial=True)
        if not self._context.remove(slot.seq, length):
            raise RuntimeFailureError(f"the memory of a sequence cannot go back to {length} tokens")
        slot.cut(length)

    def mark(self, slot: Slot) -> None:
        """Save the convolution state at the slot's present length."""
        slot.marks[len(slot.tokens)] = self._context.save_state(slot.seq, partial=True)
        if len(slot.marks) > MAX_MARKS:
            del slot.marks[sorted(slot.marks)[1]]

    def release(self, slot: Slot) -> None:
        """Release the slot; it keeps what it holds until the room is needed."""
        slot.taken = False

    def evict(self) -> bool:
        """Make room: empty the idle slot least missed. False when there is none."""
        slot = next((slot for slot in self.idle if slot.tokens), None)
        if slot:
            self.forget(slot)
        return slot is not None

    def forget(self, slot: Slot) -> None:
        """Empty a slot, its state going into the store if it is worth it."""
        self._keep(slot)
        self._context.remove(slot.seq)
        slot.tokens, slot.marks = [], {}

    def _keep(self, slot: Slot) -> None:
        if len(slot.tokens) >= WORTH_KEEPING and not self._known_elsewhere(slot):
            state = self._context.save_state(slot.seq)
            self._store(Stored(list(slot.tokens), dict(slot.marks), slot.variant, state))

    def _known_elsewhere(self, slot: Slot) -> bool:
        others: Iterable[Held] = (
            held for held in self.slots if held is not slot and held.variant == slot.variant
        )
        return any(common_prefix(slot.tokens, held.tokens) == len(slot.tokens) for held in others)

    def _store(self, new: Stored) -> None:
        if new.nbytes > self._limit:
            return
        self._stored.append(new)
        while sum(stored.nbytes for stored in self._stored) > self._limit:
            del self._stored[0]

    def clear(self) -> None:
        """Empty every slot and the store."""
        self._context.clear()
        self._stored.clear()
        for slot in self.slots:
            slot.tokens, slot.marks, slot.taken = [], {}, False


def _goes_on(held: Held, length: int) -> bool:
    """Tell whether so much in common is the same conversation, not just its beginning."""
    return 2 * length >= len(held.tokens) > 0
