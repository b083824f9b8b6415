"""Prebuilt wheels: which the index has for a platform."""

from __future__ import annotations

import sys

import pytest

from lfm2gguf.llamacpp.availability import missing
from lfm2gguf.llamacpp.backend import install_wheel
from lfm2gguf.llamacpp.wheels import platform_name, prebuilt

EXPECTED = {  # llama-cpp-python 0.3.36, README.md and .github/workflows
    ("cuda", "linux-x86_64"): "cu124",
    ("cuda", "windows-x86_64"): "cu124",
    ("cuda", "linux-aarch64"): None,
    ("cuda", "linux-musl-x86_64"): None,
    ("cuda", "macos-arm64"): None,
    ("vulkan", "linux-x86_64"): "vulkan",
    ("vulkan", "windows-x86_64"): "vulkan",
    ("vulkan", "macos-arm64"): None,
    ("rocm", "linux-x86_64"): "rocm72",
    ("rocm", "windows-x86_64"): "hip-radeon",
    ("metal", "macos-arm64"): "metal",
    ("metal", "macos-x86_64"): None,
    ("metal", "linux-x86_64"): None,
    ("sycl", "linux-x86_64"): None,
    ("cpu", "linux-musl-aarch64"): "cpu",
    ("cpu", "linux-riscv64"): "cpu",
    ("cpu", "macos-x86_64"): None,
}


@pytest.mark.parametrize(("backend", "on"), EXPECTED)
def test_what_the_index_has_for_a_platform(backend: str, on: str) -> None:
    wheel = prebuilt(backend, on, cuda=(12, 4))
    assert (wheel and wheel.index) == EXPECTED[backend, on]


@pytest.mark.parametrize(
    ("driver", "linux", "windows"),
    [
        ((14, 0), "cu132", "cu132"),
        ((13, 1), "cu130", "cu130"),
        ((12, 8), "cu125", "cu125"),
        ((12, 2), "cu122", "cu118"),
        ((12, 0), "cu118", "cu118"),
        ((11, 4), None, None),
    ],
)
def test_a_driver_runs_wheels_of_its_own_cuda_and_older(
    driver: tuple[int, int], linux: str | None, windows: str | None
) -> None:
    for on, expected in (("linux-x86_64", linux), ("windows-x86_64", windows)):
        wheel = prebuilt("cuda", on, driver)
        assert (wheel and wheel.index) == expected


def test_a_cuda_wheel_comes_with_the_libraries_that_it_leaves_out() -> None:
    old, new = (prebuilt("cuda", "linux-x86_64", cuda) for cuda in ((12, 4), (13, 0)))
    assert old
    assert new
    assert "nvidia-cuda-runtime-cu12 nvidia-cublas-cu12 " in install_wheel(old)
    assert '"nvidia-cuda-runtime==13.*" "nvidia-cublas==13.*" ' in install_wheel(new)
    assert install_wheel(new).endswith("/whl/cu130")


def test_this_platform() -> None:
    system, _, machine = platform_name().partition("-")
    assert system == {"linux": "linux", "darwin": "macos", "win32": "windows"}[sys.platform]
    assert machine.removeprefix("musl-") in {"x86_64", "aarch64", "arm64", "riscv64"}


@pytest.mark.parametrize("version", [(3, 11), (3, 14)])
def test_a_python_that_the_readme_does_not_name_is_said(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfm2gguf.llamacpp.wheels.platform_name", lambda: "linux-x86_64")
    monkeypatch.setattr("sys.version_info", (*version, 0, "final", 0))
    said = missing("rocm", built=["CPU"], driver=True)
    assert ("its tag is py3-none" in said) == (version == (3, 14))
    assert "it needs ROCm 7" in said
