"""What is asked for: bytes, bits per weight, or a KL divergence."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lfm2gguf.errors import OptionError
from lfm2gguf.numeric import check_numbers

SIZE = re.compile(r"(?P<number>\d{1,15}(\.\d{1,15})?) ?(?P<unit>[KMGT]?)(?P<binary>I?)B?")
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class Budget:
    """One of three: a file's bytes, its bits for each weight, or its mean KL divergence (nats).

    Bytes and bits are of the whole file, header and metadata included, and at most those.

    Raises:
        OptionError: none is given, several are, or one is not a positive number.

    """

    nbytes: int | None = None
    bits_per_weight: float | None = None
    kld: float | None = None

    def __post_init__(self) -> None:
        check_numbers(dict.fromkeys(vars(self), "float | None"), vars(self))
        options = {
            "size (--size)": self.nbytes,
            "bpw (--bpw)": self.bits_per_weight,
            "kld (--kld)": self.kld,
        }
        given = {option: value for option, value in options.items() if value is not None}
        if len(given) != 1:
            raise OptionError(
                "a size (--size), bits per weight (--bpw) or a KL divergence (--kld): give one"
            )
        for option, value in given.items():
            if not 0 < value < math.inf:
                raise OptionError(f"{option} is {value}; give a positive number")

    @classmethod
    def of(cls, size: str | int | None, bpw: float | None, kld: float | None) -> Budget | None:
        """Return the budget that options name, None where they name none."""
        if size is None and bpw is None and kld is None:
            return None
        return cls(None if size is None else parse_bytes(size), bpw, kld)

    def bytes_for(self, weights: int) -> int | None:
        """Return the most bytes of a file of so many weights; None where quality is asked for."""
        if self.bits_per_weight is not None:
            return int(self.bits_per_weight * weights / 8)
        return self.nbytes

    def __str__(self) -> str:
        """Say it as a file's name may."""
        if self.nbytes is not None:
            for unit in ("GB", "MB", "kB"):
                whole = {"GB": 10**9, "MB": 10**6, "kB": 10**3}[unit]
                if self.nbytes >= whole:
                    return f"{self.nbytes / whole:g}{unit}"
            return f"{self.nbytes}B"
        if self.bits_per_weight is not None:
            return f"{self.bits_per_weight:g}bpw"
        return f"KLD{self.kld:g}"


def parse_bytes(size: str | int) -> int:
    """Return the bytes of such as ``600MB``, ``1.5G`` (powers of 1000) or ``700MiB``.

    Raises:
        OptionError: it is not a size.

    """
    match = SIZE.fullmatch(str(size).strip().upper())
    if match is None or (match["binary"] and not match["unit"]):
        raise OptionError(f"size (--size): {size!r} is no size; write 600MB, 1.5GB or 700MiB")
    return int(
        float(match["number"]) * (1024 if match["binary"] else 1000) ** POWERS[match["unit"]]
    )
