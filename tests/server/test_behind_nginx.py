"""Replicas behind nginx, as examples/cluster sets them up."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.benchmarks.rolling_restart import CONF, measure

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt install nginx)")


def map_of(conf: str) -> str:
    return next(line.strip() for line in conf.splitlines() if '"user"' in line)


def test_both_ways_know_a_conversation_alike() -> None:
    kinds = {}
    for document in yaml.safe_load_all(CONF.with_name("kubernetes.yml").read_text("utf-8")):
        kinds[document["kind"], document["metadata"]["name"]] = document
    gateway = kinds["ConfigMap", "lfm2gguf-gateway"]["data"]["nginx.conf"]
    assert map_of(gateway) == map_of(CONF.read_text("utf-8"))
    server = kinds["Deployment", "lfm2gguf"]["spec"]["template"]["spec"]
    drain = int(server["containers"][0]["args"][-1])
    assert drain < server["terminationGracePeriodSeconds"]


@needs_nginx
def test_nginx_takes_the_file(tmp_path: Path) -> None:
    shutil.copy(CONF, tmp_path / "nginx.conf")
    command = [str(NGINX), "-t", "-p", str(tmp_path), "-c", "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_nginx
@pytest.mark.weekly
def test_a_rolling_restart_loses_no_request(example_files: dict[str, Path]) -> None:
    found = measure(example_files["Q8_0"], clients=4, turns=3)
    assert found["failures"] == []
    assert int(str(found["requests"])) > 20
    assert float(str(found["cached share of later turns"])) > 0.5
