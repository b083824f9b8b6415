"""Devices chosen by name, and refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lfm2gguf.bench.sources.inprocess import InProcess
from lfm2gguf.errors import DeviceError, OptionError
from lfm2gguf.llamacpp import Device, choose, overview
from lfm2gguf.llamacpp.availability import missing
from lfm2gguf.llamacpp.backend import GPUS
from lfm2gguf.runner import Runner
from lfm2gguf.verification.measure.scorers import LlamaCppEmbedder, LlamaCppScorer
from tests.making.models import tiny_gguf


def device(backend: str, kind: str = "gpu", free: int = 1, name: str = "") -> Device:
    return Device(name or backend, f"{backend} card", backend, kind, free, free, 0)


CPU = device("CPU", "cpu")
BIG, SMALL = device("CUDA", free=9), device("CUDA", free=5)
INTEGRATED = device("Vulkan", "igpu", free=99)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("auto", [BIG]),
        ("cpu", []),
        ("cuda", [SMALL]),
        ("cuda:1", [BIG]),
        ("vulkan", [INTEGRATED]),
    ],
)
def test_the_device_that_was_asked_for(wanted: str, expected: list[Device]) -> None:
    assert choose(wanted, [CPU, SMALL, BIG, INTEGRATED]) == expected


ROCM, METAL = device("ROCm", name="ROCm0"), device("MTL", "igpu", name="MTL0")
FIRST, SECOND = device("CUDA", free=5, name="CUDA0"), device("CUDA", free=9, name="CUDA1")
OTHER = device("SYCL", name="SYCL0")
THERE = [CPU, FIRST, SECOND, ROCM, METAL, OTHER, device("BLAS", "accel")]
NAMES = {
    "cuda": FIRST, "CUDA": FIRST, "cuda:1": SECOND, "CUDA:1": SECOND, "CUDA1": SECOND,
    "cuda1": SECOND, "metal": METAL, "metal:0": METAL, "MTL": METAL, "MTL0": METAL, "mtl": METAL,
    "rocm": ROCM, "ROCm0": ROCM, "sycl": OTHER, "sycl:0": OTHER, "SYCL0": OTHER, "auto": SECOND,
    "AUTO": SECOND, "cpu": None, "CPU": None,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_our_names_and_llama_cpp_s_own_mean_the_same_everywhere(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verify went by another rule: it refused cuda:1 and metal, and took all GPUs for auto."""
    expected = [device] if (device := NAMES[name]) else []
    assert choose(name, THERE) == expected
    opened: list[tuple[object, ...]] = []

    class OpenedError(Exception):
        """What a model would be opened on is known."""

    def model(path: Path, on: Sequence[Device] = (), *_: object, **__: object) -> None:
        opened.append(tuple(on))
        raise OpenedError

    monkeypatch.setattr("lfm2gguf.llamacpp.selection.devices", lambda: THERE)
    monkeypatch.setattr("lfm2gguf.llamacpp.Model", model)
    monkeypatch.setattr("lfm2gguf.runner.opening.Model", model)
    monkeypatch.setattr("lfm2gguf.runner.placement.layers_that_fit", lambda *_: 99)
    for open_model in (
        lambda: Runner(tiny_gguf(), device=name),
        lambda: LlamaCppScorer(tiny_gguf(), (), name),
        lambda: LlamaCppEmbedder(tiny_gguf(), (), name),
    ):
        with pytest.raises(OpenedError):
            open_model()
    assert opened == [tuple(expected)] * 3
    assert InProcess(tiny_gguf(), cells=[], device=name).on == expected


def test_a_device_is_listed_by_a_name_that_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lfm2gguf.llamacpp.selection.devices", lambda: THERE)
    listed = [entry["use"] for entry in overview()["devices"]]
    assert listed == ["cpu", "cuda:0", "cuda:1", "rocm:0", "metal:0", "sycl:0", "blas:0"]
    assert [choose(name) for name in listed[:-1]] == [
        [],
        [FIRST],
        [SECOND],
        [ROCM],
        [METAL],
        [OTHER],
    ]


@pytest.mark.parametrize("name", ["cuda:2", "CUDA2", "vulkan", "Vulkan0"])
def test_a_device_that_is_not_there_is_missing_not_unknown(name: str) -> None:
    with pytest.raises(DeviceError, match=r"there is no cuda:2; there is cuda:0|^vulkan: "):
        choose(name, THERE)


def test_auto_takes_what_there_is() -> None:
    assert choose("auto", [CPU, INTEGRATED]) == [INTEGRATED]
    assert choose("auto", [CPU]) == []


@pytest.mark.parametrize("wanted", ["gpu", "", "cuda:x", "cpu:1", "auto:0"])
def test_unknown_devices(wanted: str) -> None:
    with pytest.raises(OptionError, match="auto, cpu, cuda"):
        choose(wanted, [CPU])


def test_a_wheel_would_replace_the_build_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lfm2gguf.llamacpp.wheels.platform_name", lambda: "linux-x86_64")
    text = missing("vulkan", built=["CPU"])
    assert "--only-binary llama-cpp-python --extra-index-url" in text
    assert text.count("--force-reinstall") == 2


@pytest.mark.parametrize(
    ("layers", "error"), [(3, DeviceError), (-1, DeviceError), (-7, OptionError)]
)
def test_layers_are_not_dropped_in_silence(layers: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"gpu_layers is {layers}"):
        Runner(tiny_gguf(), device="cpu", gpu_layers=layers)


def test_the_number_of_a_device_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="no cuda:2; there is cuda:0"):
        choose("cuda:2", [CPU, SMALL, BIG])


@pytest.mark.parametrize("name", GPUS)
def test_which_of_three_things_is_missing(name: str) -> None:
    registry = GPUS[name].registry
    if name == "metal" and sys.platform != "darwin":
        assert missing(name, built=[registry]) == "metal: no such hardware: Metal needs macOS"
        return
    build = missing(name, built=["CPU"], driver=True)
    assert "built without it" in build
    assert f'CMAKE_ARGS="{GPUS[name].cmake}" pip install' in build
    assert "no driver" in missing(name, built=["CPU", registry], driver=False)
    assert "no such hardware" in missing(name, built=["CPU", registry], driver=True)


@pytest.mark.skipif(os.name == "nt", reason="devices are no files there")
def test_a_device_that_the_user_may_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("renderD128", "renderD129"):
        (tmp_path / name).touch()
    backend = replace(GPUS["vulkan"], nodes=(f"{tmp_path}/renderD*",))
    monkeypatch.setitem(GPUS, "vulkan", backend)
    if os.geteuid():
        (tmp_path / "renderD128").chmod(0)
    else:  # root may open what has no permissions
        allowed = os.access
        monkeypatch.setattr(os, "access", lambda f, mode: "128" not in str(f) and allowed(f, mode))
    said = missing("vulkan", built=["Vulkan"], driver=True)
    group = tmp_path.stat().st_gid
    assert f"may not open {tmp_path}/renderD128: join group {group} " in said
    assert f"--group-add {group}" in said


def test_no_silent_fall_back_to_the_cpu() -> None:
    absent = next(n for n, b in GPUS.items() if not any(d.backend == b.registry for d in _all()))
    with pytest.raises(DeviceError, match=absent):
        Runner(tiny_gguf(), device=absent)


def _all() -> list[Device]:
    from lfm2gguf.llamacpp import devices

    return devices()


def test_the_report_is_what_runs() -> None:
    with Runner(tiny_gguf(), device="cpu", threads=1) as lfm:
        report = lfm.device
    assert (report.backend, report.layers_offloaded, report.threads) == ("CPU", 0, 1)
    assert report.layers == int(lfm.metadata["lfm2.block_count"]) + 1
    assert "llama.cpp" in report.build
    assert report.to_json()["device"] == next(d for d in _all() if d.kind == "cpu").description


def test_a_backend_without_prebuilt_wheels_names_none() -> None:
    said = missing("sycl", built=["CPU"])
    assert "-DGGML_SYCL=on" in said
    assert "wheel" not in said
    assert "sycl-ls" in missing("sycl", built=["SYCL"], driver=False)
