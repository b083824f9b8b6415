"""Real local clusters, Dask's and Ray's: two worker processes that share the file system alone.

Needs ``pip install "dask[distributed]"`` and ``pip install ray``; without one, its part skips.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import convert, plan
from lfm2gguf.calibration import calibrate, collect_imatrix
from lfm2gguf.errors import TensorError
from lfm2gguf.verification import Material, verify
from tests.making.checkpoints import MOE, Case, config, make
from tests.making.models import EXAMPLE

ROOT = Path(__file__).parents[2]
TYPES = ["Q4_K_M", "Q6_K", "Q8_0"]

pytestmark = [
    pytest.mark.weekly,
    pytest.mark.filterwarnings("default"),  # their own are many
]


@dataclass
class Cluster:
    """An executor, and the process ids of its workers."""

    name: str
    executor: Executor

    def pids(self) -> set[int]:
        return {future.result() for future in [self.executor.submit(pid, i) for i in range(16)]}


def pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "cli")))
    folder = tmp_path_factory.mktemp("cluster")
    if request.param == "dask":
        distributed = pytest.importorskip("distributed", reason="Dask is not installed")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None,
                local_directory=str(folder),
            ) as local,
            distributed.Client(local) as client,
        ):  # fmt: skip
            yield Cluster("dask", client.get_executor())
        return
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    sys.path.insert(0, str(ROOT / "examples" / "cluster"))
    from ray_executor import RayExecutor

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield Cluster("ray", RayExecutor())
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some tens of millions of weights: tasks enough to lose a worker among them."""
    shape = config(
        hidden_size=512, intermediate_size=1536, num_hidden_layers=10, head_dim=128,
        layer_types=["conv", "full_attention"] * 5,
    )  # fmt: skip
    return make(Case(shape), tmp_path_factory.mktemp("source") / "LFM2-Cluster")


def test_the_bytes_are_the_same(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = convert(source, tmp_path / "here", TYPES).files
    assert len(cluster.pids()) == 2
    there = plan(source, tmp_path / "there", TYPES).write(executor=cluster.executor).files
    for a, b in zip(here, there, strict=True):
        assert a.path.read_bytes() == b.path.read_bytes()


def test_a_worker_is_killed_on_the_way(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = convert(source, tmp_path / "here", TYPES).files
    [victim, *_] = cluster.pids()
    seen = threading.Event()

    def kill(report: object) -> None:
        if not seen.is_set():
            seen.set()
            os.kill(victim, signal.SIGKILL)

    drafted = plan(source, tmp_path / "there", TYPES)
    there = drafted.write(executor=cluster.executor, progress=kill).files
    assert seen.is_set()
    for a, b in zip(here, there, strict=True):
        assert a.path.read_bytes() == b.path.read_bytes()


def test_an_error_is_the_one_that_it_is_here(
    cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in source.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    [shard, *_] = sorted(broken.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-2:] = b"\xc0\x7f"
    shard.write_bytes(data)
    with pytest.raises(TensorError, match="nan"):
        plan(broken, tmp_path, "Q8_0").write(executor=cluster.executor)
    assert not list(tmp_path.glob("*.gguf*"))


def test_matrix_and_ladder(cluster: Cluster, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text((EXAMPLE / "README.md").read_text("utf-8") * 12, "utf-8")
    here = collect_imatrix(EXAMPLE, [text])
    there = collect_imatrix(EXAMPLE, [text], executor=cluster.executor)
    for name, entry in here.entries.items():
        assert np.array_equal(entry.sums, there.entries[name].sums), name
    files = [file.path for file in convert(EXAMPLE, tmp_path, TYPES).files]
    material = Material(chunks=2)
    judged = verify(files, EXAMPLE, material=material)
    found = verify(files, EXAMPLE, material=material, executor=cluster.executor)
    assert [r.figures for r in found] == [r.figures for r in judged]


def test_calibration(cluster: Cluster, tmp_path: Path) -> None:
    source = make(Case(MOE, dtype="F32"), tmp_path / "LFM2-Moe")
    text = tmp_path / "text.txt"
    text.write_text("abc de fgh. " * 400)
    options: dict[str, Any] = {"texts": [text], "ctx": 32, "chunks": 16}
    calibrate(source, tmp_path / "here.gguf", "Q4_0", **options)
    calibrate(source, tmp_path / "there.gguf", "Q4_0", executor=cluster.executor, **options)
    assert (tmp_path / "here.gguf").read_bytes() == (tmp_path / "there.gguf").read_bytes()
