"""Replicas behind nginx, as examples/cluster sets them up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm2gguf.runner import Runner
from lfm2gguf.server.metrics import Metrics
from tests.benchmarks.rolling_restart import CONF, measure

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt install nginx)")


def map_of(conf: str) -> str:
    return next(line.strip() for line in conf.splitlines() if '"user"' in line)


@pytest.fixture
def kinds() -> dict[tuple[str, str], Any]:
    """The resources of kubernetes.yml by kind and name."""
    text = CONF.with_name("kubernetes.yml").read_text("utf-8")
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}


def test_both_ways_know_a_conversation_alike(kinds: dict[tuple[str, str], Any]) -> None:
    gateway = kinds["ConfigMap", "lfm2gguf-gateway"]["data"]["nginx.conf"]
    assert map_of(gateway) == map_of(CONF.read_text("utf-8"))


def test_what_is_ended_has_the_time_it_takes(kinds: dict[tuple[str, str], Any]) -> None:
    """A replica waits and drains before it is killed, and the gateway not before its replicas."""
    server = kinds["StatefulSet", "lfm2gguf"]["spec"]["template"]["spec"]
    gateway = kinds["Deployment", "lfm2gguf-gateway"]["spec"]["template"]["spec"]
    for pod in (server, gateway):
        [container] = pod["containers"]
        program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        drain = int(server["containers"][0]["args"][-1])
        assert int(seconds) + drain < pod["terminationGracePeriodSeconds"]


def test_the_resources_name_each_other(kinds: dict[tuple[str, str], Any]) -> None:
    """Their own fields are held to Kubernetes' schemas by the workflow (kubernetes-validate)."""
    made = {
        name: one for (kind, name), one in kinds.items() if kind in ("StatefulSet", "Deployment")
    }
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in made.values()]
    assert [one["spec"]["selector"]["matchLabels"] for one in made.values()] == labels
    for (kind, _), one in kinds.items():
        if kind == "Service":
            assert one["spec"]["selector"] in labels
    [volume] = made["lfm2gguf-gateway"]["spec"]["template"]["spec"]["volumes"]
    assert ("ConfigMap", volume["configMap"]["name"]) in kinds


def test_the_gateway_knows_every_replica_by_a_name_of_its_own(
    kinds: dict[tuple[str, str], Any],
) -> None:
    """nginx hashes servers by name: addresses of one name would share the conversations."""
    gateway = kinds["ConfigMap", "lfm2gguf-gateway"]["data"]["nginx.conf"]
    service = kinds["StatefulSet", "lfm2gguf"]["spec"]["serviceName"]
    port = kinds["Service", service]["spec"]["ports"][0]["port"]
    most = kinds["ScaledObject", "lfm2gguf"]["spec"]["maxReplicaCount"]
    names = [f"lfm2gguf-{i}.{service}.default.svc.cluster.local:{port}" for i in range(most)]
    assert re.findall(r"server (\S+) resolve ", gateway) == names


def test_scaling_goes_by_a_metric_that_there_is(
    kinds: dict[tuple[str, str], Any], example_files: dict[str, Path]
) -> None:
    scaled = kinds["ScaledObject", "lfm2gguf"]["spec"]
    assert (scaled["scaleTargetRef"]["kind"], scaled["scaleTargetRef"]["name"]) in kinds
    [trigger] = scaled["triggers"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values())  # KEDA's rule
    [metric] = re.findall(r"\blfm2gguf_\w+", trigger["metadata"]["query"])
    with Runner(example_files["Q8_0"], device="cpu", threads=1) as lfm:
        assert f"\n{metric} 0.0\n" in Metrics(lfm).text().decode()


@needs_nginx
def test_nginx_takes_the_file(tmp_path: Path) -> None:
    shutil.copy(CONF, tmp_path / "nginx.conf")
    command = [str(NGINX), "-t", "-p", str(tmp_path), "-c", "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_nginx
def test_nginx_takes_the_gateway_of_kubernetes_without_being_root(
    kinds: dict[tuple[str, str], Any],
) -> None:
    """Its image lets it write to /tmp, not to the places that nginx was built for."""
    conf = kinds["ConfigMap", "lfm2gguf-gateway"]["data"]["nginx.conf"]
    conf = re.sub(r"lfm2gguf-\d\S+:(\d+) resolve", r"127.0.0.1:\1", conf)  # nginx 1.27.3 on has it
    conf = re.sub(r"resolver \S+", "resolver 127.0.0.1", conf)
    assert "pid /tmp/nginx.pid;" in conf
    user = 65534 if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o777)
        file = Path(folder, "nginx.conf")
        file.write_text(conf.replace("/tmp/", f"{folder}/"), "utf-8")
        command = [str(NGINX), "-t", "-c", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, user=user)
    assert done.returncode == 0, done.stderr


@needs_nginx
@pytest.mark.weekly
def test_a_rolling_restart_loses_no_request(example_files: dict[str, Path]) -> None:
    found = measure(example_files["Q8_0"], clients=4, turns=3)
    assert found["failures"] == []
    assert int(str(found["requests"])) > 20
    assert float(str(found["cached share of later turns"])) > 0.5
