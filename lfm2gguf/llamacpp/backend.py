"""The backends of llama.cpp: one table of what each is called, needs and lacks.

Facts: llama.cpp, commit 0c1e57098. A backend that is not in the table can still be asked for, by
the name that it has in ggml's registry.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lfm2gguf.ggml import GGMLType

_AGAIN = "--force-reinstall --no-deps --no-cache-dir"  # pip would keep the build that is there
_PACKAGE = '"llama-cpp-python>=0.3.36"'
WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"


@dataclass(frozen=True)
class Backend:
    """A kind of device: how it is asked for, how to get it, and what it does not compute.

    ``lacks`` are the types whose matrix product it leaves to the CPU, ``lacks_when_old`` those
    that only its newer hardware has (case ``GGML_OP_MUL_MAT`` of ``supports_op`` in ``source``).
    """

    name: str
    registry: str  # the name in ggml's registry
    source: str
    lacks: frozenset[GGMLType] = frozenset()
    lacks_when_old: frozenset[GGMLType] = frozenset()
    cmake: str = ""
    wheel: str = ""  # in the index of llama-cpp-python's prebuilt wheels (its README)
    driver: tuple[str, ...] = field(default=())  # files or programs, any of which shows a driver
    driver_help: str = ""

    @property
    def install(self) -> str:
        """The command that builds llama-cpp-python for this backend."""
        return f'CMAKE_ARGS="{self.cmake}" pip install {_AGAIN} {_PACKAGE}'

    @property
    def install_wheel(self) -> str:
        """The command that takes a wheel that was built for it."""
        index = f"--only-binary llama-cpp-python --extra-index-url {WHEELS}/{self.wheel}"
        return f"pip install {_AGAIN} {_PACKAGE} {index}"


_CUDA = "ggml/src/ggml-cuda/ggml-cuda.cu"
_TERNARY = frozenset({GGMLType.TQ1_0, GGMLType.TQ2_0})
_ALL = (
    Backend("cpu", "CPU", "ggml/src/ggml-cpu/ggml-cpu.c"),
    Backend(
        "cuda", "CUDA", _CUDA, _TERNARY,
        cmake="-DGGML_CUDA=on", wheel="cu124",
        driver=("nvidia-smi", "/proc/driver/nvidia/version"),
        driver_help="install NVIDIA's driver (nvidia-smi must list the GPU)",
    ),
    Backend(
        "vulkan", "Vulkan", "ggml/src/ggml-vulkan/ggml-vulkan.cpp",
        cmake="-DGGML_VULKAN=on", wheel="vulkan",
        driver=("vulkaninfo", "/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"),
        driver_help="install a Vulkan driver (mesa-vulkan-drivers, or the vendor's)",
    ),
    Backend(
        "rocm", "ROCm", f"{_CUDA}, built for HIP", _TERNARY,
        cmake="-DGGML_HIP=on", wheel="rocm72",
        driver=("rocminfo", "/dev/kfd"),
        driver_help="install ROCm (rocminfo must list the GPU)",
    ),
    Backend(
        "sycl", "SYCL", "ggml/src/ggml-sycl/ggml-sycl.cpp", _TERNARY,
        cmake="-DGGML_SYCL=on -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx",
        driver=("sycl-ls", "clinfo"),
        driver_help="install Intel's compute runtime and oneAPI (sycl-ls must list the GPU)",
    ),
    Backend(
        "metal", "MTL", "ggml/src/ggml-metal/ggml-metal-device.m",
        frozenset({GGMLType.TQ1_0, GGMLType.NVFP4}), frozenset({GGMLType.BF16}),
        cmake="-DGGML_METAL=on", wheel="metal",
        driver=("/System/Library",), driver_help="Metal needs macOS",
    ),
)  # fmt: skip
BACKENDS = {backend.name: backend for backend in _ALL}
GPUS = {name: backend for name, backend in BACKENDS.items() if name != "cpu"}
