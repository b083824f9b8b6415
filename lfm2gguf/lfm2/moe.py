"""The mixtures of experts: LFM2-8B-A1B, LFM2.5-8B-A1B, LFM2-24B-A2B.

The first layers are dense; in the others a gate chooses a few of many experts for each token.
A checkpoint has its experts one by one, or packed as transformers 5 computes with them; a
GGUF has them stacked (conversion/lfm2.py, llama.cpp commit 0c1e57098).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.errors import CheckpointError, UnsupportedError
from lfm2gguf.gguf_file import Metadata, Value
from lfm2gguf.lfm2 import dense
from lfm2gguf.lfm2.config import COPY, get
from lfm2gguf.lfm2.dense import U32, Dense
from lfm2gguf.lfm2.plan import PlannedTensor, Source

SIGMOID = 2  # LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID, src/llama-hparams.h


@dataclass(frozen=True)
class Experts:
    """The part of the config that dense models do not have; widths in weights."""

    count: int
    used: int
    width: int
    dense_layers: int
    dense_width: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Experts:
        """Read and check a config.

        Raises:
            CheckpointError: a key is missing or not valid.
            UnsupportedError: a key asks for arithmetic that llama.cpp's lfm2moe does not have.

        """
        _check_assumptions(config)
        experts = cls(
            count=get(config, int, "num_experts", "num_local_experts"),
            used=get(config, int, "num_experts_per_tok"),
            width=get(config, int, "moe_intermediate_size"),
            dense_layers=get(config, int, "num_dense_layers", default=2, least=0),
            dense_width=get(config, int, "intermediate_size", "block_ff_dim"),
        )
        if experts.used > experts.count:
            raise CheckpointError(
                f"config.json: num_experts_per_tok is {experts.used}, of {experts.count} experts; "
                f"{COPY}"
            )
        return experts


@dataclass(frozen=True)
class Mixture(Dense):
    """A text model whose later layers are mixtures of experts."""

    experts: Experts
    architecture: ClassVar[str] = "lfm2moe"

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Mixture:
        """Parse the config, and settle whether the head is the embedding."""
        model = Dense.open(checkpoint)
        experts = Experts.read(checkpoint.config)
        return cls(model.checkpoint, model.config, model.decided, experts)

    @property
    def n_experts(self) -> int:
        """Count the experts of a layer."""
        return self.experts.count

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield every tensor of the file, with its sources."""
        sizes = dense.dimensions(self.config) | {
            "ffn": self.experts.dense_width,
            "experts": self.experts.count,
            "expert": self.experts.width,
        }
        return layout(
            self.config.layer_types,
            sizes,
            tied=self.config.tied,
            dense_layers=self.experts.dense_layers,
            stored=self.checkpoint.tensors,
        )

    def metadata(self) -> Metadata:
        """Return the keys of the architecture."""
        experts = self.experts
        keys = {
            **dense.shape_keys(replace(self.config, feed_forward=experts.dense_width)),
            "expert_count": Value(U32, experts.count),
            "expert_used_count": Value(U32, experts.used),
            **dense.head_keys(self.config),
            "expert_feed_forward_length": Value(U32, experts.width),
            "leading_dense_block_count": Value(U32, experts.dense_layers),
            "expert_gating_func": Value(U32, SIGMOID),
            **dense.last_keys(self.config),
        }
        return self.named(keys)


def layout(
    kinds: Iterable[str],
    sizes: Mapping[str, int],
    *,
    tied: bool,
    dense_layers: int,
    stored: Container[str] = (),
) -> Iterator[PlannedTensor]:
    """Yield every tensor of a model of these sizes; ``stored`` says how its experts are saved."""
    yield from dense.expand(dense.OUTER if tied else dense.OUTER | dense.HEAD, sizes)
    for i, kind in enumerate(kinds):
        to, source = f"blk.{i}.", f"model.layers.{i}."
        yield from dense.expand(dense.NORMS | dense.OPERATOR[kind], sizes, to, source)
        if i < dense_layers:
            yield from dense.expand(dense.FEED_FORWARD, sizes, to, source)
        else:
            yield from _mixture(sizes, to, f"{source}feed_forward.", stored)


def _mixture(
    sizes: Mapping[str, int], to: str, source: str, stored: Container[str]
) -> Iterator[PlannedTensor]:
    """Yield the gate, its bias, and the three matrices of all experts."""
    count, width, hidden = sizes["experts"], sizes["expert"], sizes["hidden"]
    gate, bias = Source(f"{source}gate.weight", (count, hidden)), (count,)
    yield PlannedTensor(f"{to}ffn_gate_inp.weight", gate.shape, (gate,))
    yield PlannedTensor(f"{to}exp_probs_b.bias", bias, (Source(f"{source}expert_bias", bias),))
    find = _packed if f"{source}experts.gate_up_proj" in stored else _one_by_one
    for name, (matrix, shape) in {
        "ffn_gate_exps": ("w1", (width, hidden)),
        "ffn_up_exps": ("w3", (width, hidden)),
        "ffn_down_exps": ("w2", (hidden, width)),
    }.items():
        rows = tuple(find(f"{source}experts.", i, matrix, shape, count) for i in range(count))
        yield PlannedTensor(f"{to}{name}.weight", (count, *shape), rows)


def _one_by_one(prefix: str, i: int, matrix: str, shape: tuple[int, int], count: int) -> Source:
    return Source(f"{prefix}{i}.{matrix}.weight", shape)


def _packed(prefix: str, i: int, matrix: str, shape: tuple[int, int], count: int) -> Source:
    """Find expert ``i``'s rows: gate and up lie behind one another, expert after expert."""
    (rows, columns), alone = shape, f"{prefix}{i}.{matrix}.weight"
    if matrix == "w2":
        whole, start = (count, rows, columns), i * rows
        return Source(f"{prefix}down_proj", whole, start, start + rows, alone)
    whole, start = (count, 2 * rows, columns), (2 * i + (matrix == "w3")) * rows
    return Source(f"{prefix}gate_up_proj", whole, start, start + rows, alone)


def _check_assumptions(config: Mapping[str, Any]) -> None:
    """Check what llama.cpp's lfm2moe (src/models/lfm2moe.cpp, lfm2.cpp) takes for granted."""
    assumed = {"use_expert_bias": True, "norm_topk_prob": True, "routed_scaling_factor": 1.0}
    for key, value in assumed.items():
        if config.get(key) not in (None, value):
            raise UnsupportedError(
                f"config.json: {key} is {config[key]!r}; llama.cpp's lfm2moe knows only {value!r}"
            )
