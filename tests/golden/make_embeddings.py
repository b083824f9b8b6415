"""Make embeddings.json: what transformers computes for tests/retrieval_checkpoints.py.

    python -m tests.golden.make_embeddings

Needs torch and transformers 5.23. That version has no Lfm2BidirectionalModel yet (the models
bring it as remote code), so Lfm2Model is changed as that code changes it: no causal mask, and
the convolution centred on its token instead of ending at it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import conv1d
from transformers.models.lfm2 import modeling_lfm2

from lfm2gguf.checkpoint import Checkpoint
from tests.making.retrieval_checkpoints import CASES, SEQUENCES, Retrieval, make_retrieval

TARGET = Path(__file__).with_name("embeddings.json")
CAUSAL = modeling_lfm2.create_causal_mask, modeling_lfm2.causal_conv1d_fn


def no_mask(**kwargs: Any) -> None:
    return None


def centred(x: torch.Tensor, weight: torch.Tensor, bias: Any, **kwargs: Any) -> torch.Tensor:
    return conv1d(x, weight[:, None], bias, padding=weight.shape[1] // 2, groups=len(weight))


def model_of(folder: Path, config: dict[str, Any]) -> modeling_lfm2.Lfm2Model:
    keys = {k: v for k, v in config.items() if k != "architectures"}
    model = modeling_lfm2.Lfm2Model(transformers.Lfm2Config(**keys, attn_implementation="eager"))
    checkpoint = Checkpoint.open(folder)
    state = {n: torch.tensor(checkpoint.read(n)) for n in checkpoint.tensors if "/" not in n}
    model.load_state_dict(state, strict=True)
    return model.float().eval()


@torch.inference_mode()
def embed(folder: Path, case: Retrieval) -> list[list[list[float]]]:
    """Vectors of each sequence: one for each token, or one where there is a pooling."""
    bidirectional = case.config["architectures"] == ["Lfm2BidirectionalModel"]
    modeling_lfm2.create_causal_mask = no_mask if bidirectional else CAUSAL[0]
    modeling_lfm2.causal_conv1d_fn = centred if bidirectional else CAUSAL[1]
    model = model_of(folder, case.config)
    vectors = []
    for ids in SEQUENCES:
        x = model(torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        x = pool(x, case.pooling)
        if case.dense:
            x = x @ torch.tensor(Checkpoint.open(folder).read("1_Dense/linear.weight")).T
        vectors.append(np.round(x.numpy().astype(np.float64), 7).tolist())
    return vectors


def pool(x: torch.Tensor, pooling: dict[str, Any]) -> torch.Tensor:
    flags = [key for key, value in pooling.items() if value is True]
    name = str((flags or [pooling.get("pooling_mode")])[0])
    ways = {"cls_token": x[:1], "mean": x.mean(0, keepdim=True), "lasttoken": x[-1:], "None": x}
    return ways[name.removeprefix("pooling_mode_")]


def main() -> None:
    cases = {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as temporary:
            cases[name] = embed(make_retrieval(case, Path(temporary) / name), case)
    about = f"tests/golden/make_embeddings.py: transformers {transformers.__version__}"
    text = json.dumps({"made by": about, "cases": cases})
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
