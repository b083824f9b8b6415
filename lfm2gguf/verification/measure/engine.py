"""What runs the file that is judged, and what is compared with what."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lfm2gguf.errors import MissingDependencyError, OptionError
from lfm2gguf.install import install_command
from lfm2gguf.llamacpp import check_threads
from lfm2gguf.numeric import check_numbers
from lfm2gguf.verification.measure.scorers import llamacpp_available

SHIPPED = "shipped"  # reference against what is shipped; the other two are of a three-way run
QUANTIZATION = "quantization"  # reference against the dequantized file
RUNTIME = "runtime"  # dequantized file against llama.cpp

NAMES = ("auto", "llama.cpp", "numpy")


@dataclass(frozen=True)
class Engine:
    """What runs the file.

    Args:
        name: ``llama.cpp``, ``numpy`` (which dequantizes the file), or ``auto``: llama.cpp where
            it is installed.
        device: where llama.cpp runs: ``cpu`` (the default), ``auto``, a backend or a device's
            name.
        threads: llama.cpp's threads; by default the physical cores.
        three_way: run both, to tell loss by quantization from faults of the runtime.

    """

    name: str = "auto"
    device: str | None = None
    threads: int | None = None
    three_way: bool = False

    def __post_init__(self) -> None:
        check_numbers(type(self).__annotations__, vars(self))

    def resolved(self) -> Engine:
        """Return the engine with ``auto`` replaced by what is installed.

        Raises:
            OptionError: the name is unknown, or does not go with another option; or there are
                too many threads.
            MissingDependencyError: llama.cpp is asked for and not installed.

        """
        if self.name not in NAMES:
            raise OptionError(f"engine {self.name!r} is not one of {', '.join(NAMES)}")
        check_threads(self.threads)
        available = llamacpp_available()
        if (self.name == "llama.cpp" or self.three_way) and not available:
            raise MissingDependencyError(
                f"llama-cpp-python is not installed: {install_command('run')}, or use the "
                "engine numpy (--engine numpy)"
            )
        if self.three_way and self.name == "numpy":
            raise OptionError("three_way (--three-way) runs both engines; omit the engine")
        if self.name == "numpy" or not available:
            for option in ("device", "threads"):
                if (value := getattr(self, option)) is not None:
                    raise OptionError(
                        f"{option} (--{option}) {value}: is for llama.cpp, and the engine is "
                        "numpy; leave one of them out"
                    )
        name = "llama.cpp" if available and self.name != "numpy" else "numpy"
        return replace(self, name=name)

    @property
    def runs_llamacpp(self) -> bool:
        """Whether llama.cpp runs the file."""
        return self.name == "llama.cpp"

    @property
    def place(self) -> str:
        """Where it runs."""
        return self.device or "cpu"

    @property
    def dequantizes(self) -> bool:
        """Whether NumPy runs it."""
        return self.three_way or not self.runs_llamacpp

    @property
    def pairs(self) -> dict[str, tuple[int, int]]:
        """What is compared in each stage; 0 is the reference, then what runs the file."""
        if self.three_way:
            return {SHIPPED: (0, 2), QUANTIZATION: (0, 1), RUNTIME: (1, 2)}
        return {SHIPPED: (0, 1)}
