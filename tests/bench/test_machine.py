"""Processes, the machine, its probes, and what bandwidth allows."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from lfm2gguf import GGUFFile, convert
from lfm2gguf.bench.machine.environment import describe_file, environment
from lfm2gguf.bench.machine.processes import listener, own_resident, resident
from lfm2gguf.bench.machine.roofline import cache_bytes, roofline, weight_bytes
from lfm2gguf.llamacpp.probes import Probes, enough, probe
from tests.making.checkpoints import MOE, Case, make
from tests.making.models import tiny_gguf


def test_the_weights_of_a_dense_model_are_all_read() -> None:
    file = GGUFFile.open(tiny_gguf())
    assert weight_bytes(file) == sum(tensor.nbytes for tensor in file.tensors.values())


def test_keys_and_values_grow_with_the_depth() -> None:
    file = GGUFFile.open(tiny_gguf())  # 4 attention layers of 2 KV heads, 64 wide, float16
    assert cache_bytes(file, 10) == 10 * 4 * 2 * (64 + 64) * 2
    assert roofline(file, 1e9, 0) == pytest.approx(1e9 / weight_bytes(file))
    assert roofline(file, 1e9, 100) == pytest.approx(
        1e9 / (weight_bytes(file) + cache_bytes(file, 100))
    )


def test_of_a_mixture_only_the_active_experts_are_read(tmp_path: Path) -> None:
    source = make(Case(MOE | {"tie_word_embeddings": False}), tmp_path / "MoE")
    file = GGUFFile.open(convert(source, tmp_path, "BF16").files[0].path)
    sizes = {name: tensor.nbytes for name, tensor in file.tensors.items()}
    experts = sum(size for name, size in sizes.items() if "_exps." in name)
    table = file.tensors["token_embd.weight"]
    share = MOE["num_experts_per_tok"] / MOE["num_experts"]
    assert 0 < experts < sum(sizes.values())
    assert weight_bytes(file) == (
        sum(sizes.values()) - experts + share * experts - table.nbytes + table.row_bytes
    )


@pytest.mark.slow
def test_a_slow_device_is_probed_twice_and_a_fast_one_long_enough() -> None:
    assert not enough([])
    assert not enough([20.0])  # the first run makes a GPU's shaders
    assert enough([20.0, 17.0])
    assert not enough([0.1] * 7)
    assert enough([0.1] * 8)
    assert not enough([0.001] * 600)
    assert enough([0.001] * 800)


def test_the_probes_measure_this_machine() -> None:
    from lfm2gguf.llamacpp import devices

    cpu = next(device for device in devices() if device.kind == "cpu")
    found = probe(cpu, 1)
    assert (found.device, found.threads) == (cpu.description, 1)
    assert min(found.copy, found.read) > 1e8
    assert found.matrix > 1e9
    assert found.to_json()["bandwidth"] == max(found.copy, found.read)


def test_the_roofline_takes_the_higher_bandwidth() -> None:
    assert Probes("d", 1, copy=2.0, read=1.0, matrix=1.0).bandwidth == 2
    assert Probes("d", 1, copy=1.0, read=3.0, matrix=1.0).bandwidth == 3


def test_the_environment_is_plain_data_without_gaps() -> None:
    about = environment()
    assert json.loads(json.dumps(about)) == about
    assert {"processor", "architecture", "os", "kernel", "python", "lfm2gguf"} <= about.keys()
    assert None not in about.values()
    assert about["llama.cpp"]["backends"]


def test_a_file_is_described_by_its_bytes() -> None:
    import hashlib

    about = describe_file(GGUFFile.open(tiny_gguf()))
    data = tiny_gguf().read_bytes()
    assert about["sha256"] == hashlib.sha256(data).hexdigest()
    assert (about["bytes"], about["type"], about["architecture"]) == (len(data), "F32", "lfm2")


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_memory_of_this_process_and_of_none() -> None:
    before = own_resident()
    held = bytearray(os.urandom(1 << 20) * 64)
    after = own_resident()
    assert before is not None
    assert after is not None
    assert len(held) * 0.9 < after - before < len(held) * 2
    assert resident(2**22 + 1) is None


@linux
def test_who_listens() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert listener(port) is None
        server.listen()
        assert listener(port) == os.getpid()
    assert listener(port) is None
