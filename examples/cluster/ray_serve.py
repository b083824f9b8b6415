"""Replicas of a model in Ray Serve, as many as the answers that wait call for.

    pip install "ray[serve]" "lfm2gguf[serve]"
    MODEL=/models/LFM2-1.2B-Q4_K_M.gguf serve run ray_serve:app

Each replica is the whole server of ``lfm2gguf serve`` over a runner of its own.
"""

from __future__ import annotations

import os
from typing import Any

from ray import serve

PARALLEL = 4  # answers that a replica computes together


def server() -> Any:
    """Open the model on a replica, and return the application that serves it."""
    from lfm2gguf import Runner
    from lfm2gguf.server import create_app

    return create_app(Runner(os.environ["MODEL"], parallel=PARALLEL), name="model")


@serve.deployment(
    max_ongoing_requests=4 * PARALLEL,  # what is more waits in Ray
    graceful_shutdown_timeout_s=60,
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": int(os.environ.get("MAX_REPLICAS", "8")),
        "target_ongoing_requests": PARALLEL,  # as many as are computed: more of them wait
        "upscale_delay_s": float(os.environ.get("UPSCALE_DELAY", "10")),
    },
)
@serve.ingress(server)
class Model:
    """One replica."""


app = Model.bind()
