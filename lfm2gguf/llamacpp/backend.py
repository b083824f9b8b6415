"""The backends of llama.cpp: one table of what each is called, needs and lacks.

Facts: llama.cpp, commit 0c1e57098. A backend that is not in the table can still be asked for, by
the name that it has in ggml's registry.
"""

from __future__ import annotations

from dataclasses import dataclass

from lfm2gguf.ggml import GGMLType
from lfm2gguf.llamacpp.wheels import Wheel

_AGAIN = "--force-reinstall --no-deps --no-cache-dir"  # pip would keep the build that is there
_PACKAGE = '"llama-cpp-python>=0.3.36"'


@dataclass(frozen=True)
class Backend:
    """A kind of device: how it is asked for, how to get it, and what it does not compute.

    ``lacks`` are the types whose matrix product it leaves to the CPU, ``lacks_when_old`` those
    that only its newer hardware has (case ``GGML_OP_MUL_MAT`` of ``supports_op`` in ``source``).
    ``nodes`` are patterns of the files that its driver opens, where they belong to a group (Linux).
    ``libraries`` are how the names begin of what its build is linked with and does not bring.
    """

    name: str
    registry: str  # the name in ggml's registry
    source: str
    lacks: frozenset[GGMLType] = frozenset()
    lacks_when_old: frozenset[GGMLType] = frozenset()
    cmake: str = ""
    driver: tuple[str, ...] = ()  # patterns of files, any of which shows a driver
    driver_help: str = ""
    nodes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    libraries_help: str = ""

    @property
    def install(self) -> str:
        """The command that builds llama-cpp-python for this backend."""
        return f'CMAKE_ARGS="{self.cmake}" pip install {_AGAIN} {_PACKAGE}'


def install_wheel(wheel: Wheel) -> str:
    """Return the command that takes a wheel that was built for a backend."""
    packages = " ".join([_PACKAGE, *wheel.packages])
    index = f"--only-binary llama-cpp-python --extra-index-url {wheel.url}"
    return f"pip install {_AGAIN} {packages} {index}"


_CUDA = "ggml/src/ggml-cuda/ggml-cuda.cu"
_RENDER = ("/dev/dri/renderD*",)
_TERNARY = frozenset({GGMLType.TQ1_0, GGMLType.TQ2_0})
_ALL = (
    Backend("cpu", "CPU", "ggml/src/ggml-cpu/ggml-cpu.c"),
    Backend(
        "cuda", "CUDA", _CUDA, _TERNARY,
        cmake="-DGGML_CUDA=on",
        driver=("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1",
                "C:/Windows/System32/nvcuda.dll"),
        driver_help="install NVIDIA's driver (nvidia-smi must list the GPU)",
        libraries=("libcudart", "libcublas"),
        libraries_help="install CUDA's runtime and cuBLAS of that version "
                       "(pip install nvidia-cuda-runtime-cu12 nvidia-cublas-cu12; of CUDA 13 "
                       'the same names without -cu12, as in "nvidia-cublas==13.*")',
    ),
    Backend(
        "vulkan", "Vulkan", "ggml/src/ggml-vulkan/ggml-vulkan.cpp",
        cmake="-DGGML_VULKAN=on",
        driver=("/usr/share/vulkan/icd.d/*.json", "/etc/vulkan/icd.d/*.json",
                "C:/Windows/System32/vulkan-1.dll"),
        driver_help="install a Vulkan driver (apt install mesa-vulkan-drivers, or the vendor's)",
        nodes=_RENDER,
        libraries=("libvulkan",),
        libraries_help="install Vulkan's loader (apt install libvulkan1 mesa-vulkan-drivers)",
    ),
    Backend(
        "rocm", "ROCm", f"{_CUDA}, built for HIP", _TERNARY,
        cmake="-DGGML_HIP=on",
        driver=("/dev/kfd", "C:/Windows/System32/amdhip64*.dll"),
        driver_help="install ROCm (rocminfo must list the GPU)",
        nodes=("/dev/kfd", *_RENDER),
        libraries=("libamdhip64", "libhipblas", "librocblas", "libhsa"),
        libraries_help="install ROCm of that version",
    ),
    Backend(
        "sycl", "SYCL", "ggml/src/ggml-sycl/ggml-sycl.cpp", _TERNARY,
        cmake="-DGGML_SYCL=on -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx",
        driver=("/usr/lib/*/libze_intel_gpu.so*", "/usr/lib64/libze_intel_gpu.so*",
                "/etc/OpenCL/vendors/intel*.icd", "C:/Windows/System32/ze_loader.dll"),
        driver_help="install Intel's compute runtime and oneAPI (sycl-ls must list the GPU)",
        nodes=_RENDER,
        libraries=("libsycl", "libmkl_sycl", "libdnnl", "libOpenCL", "libsvml", "libimf"),
        libraries_help="source oneAPI's setvars.sh first",
    ),
    Backend(
        "metal", "MTL", "ggml/src/ggml-metal/ggml-metal-device.m",
        frozenset({GGMLType.TQ1_0, GGMLType.NVFP4}), frozenset({GGMLType.BF16}),
        cmake="-DGGML_METAL=on",
        driver=("/System/Library",), driver_help="Metal needs macOS",
    ),
)  # fmt: skip
BACKENDS = {backend.name: backend for backend in _ALL}
GPUS = {name: backend for name, backend in BACKENDS.items() if name != "cpu"}
RPC = Backend("rpc", "RPC", "ggml/src/ggml-rpc/ggml-rpc.cpp", cmake="-DGGML_RPC=on")


def library_help(error: str) -> str:
    """Return what to do where the loader misses a library, empty where it is no backend's.

    ``libcuda.so.1`` is the driver's, the others are those that a build is linked with.
    """
    for backend in GPUS.values():
        if backend.name == "cuda" and "libcuda.so" in error:
            return f"it is built for CUDA: {backend.driver_help}, or "
        if any(library in error for library in backend.libraries):
            return f"it is built for {backend.registry}: {backend.libraries_help}, or "
    return ""
