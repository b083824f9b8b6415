"""Vision: LFM2-VL and LFM2.5-VL. One file is the text model, another the projector (mmproj).

llama.cpp runs the two together: the text model is an ordinary LFM2, the projector holds the
SigLIP 2 tower and the two layers that bring its patches into the text model's space. What it
needs is said in conversion/lfm2.py (``LFM2VLModel``), conversion/base.py (``MmprojModel``) and
tools/mtmd/clip.cpp of llama.cpp, commit 0c1e57098; the names of the checkpoint are those of
models/siglip2 and models/lfm2_vl of transformers 4.55 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint import Checkpoint, read_json
from lfm2gguf.errors import CheckpointError
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2.config import get
from lfm2gguf.lfm2.plan import PlannedTensor, Source
from lfm2gguf.lfm2.text_part import TEXT_REASON, root, starting, text_checkpoint
from lfm2gguf.lfm2.vision_config import VisionConfig

IMAGE_SIZE = 256  # llama.cpp's converter sets it for every NaFlex tower: any size is taken
COLOURS = 3  # llama.cpp reads as many numbers (tools/mtmd/clip.cpp)
PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # the later wins

TEXT_ROOTS = {
    "model.language_model.": "model.",
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
}
TOWER_ROOTS = (
    "model.vision_tower.vision_model.",
    "vision_tower.vision_model.",
    "model.vision_tower.",  # transformers 5; llama.cpp's converter does not know that name
    "vision_tower.",
)
CONNECTOR_ROOTS = ("model.multi_modal_projector.", "multi_modal_projector.")
# Of the tower as it was published, and not part of what llama.cpp runs.
HEAD_REASON = "the tower's pooling head, which LFM2-VL does not use"
TOWER_REASON = "of the vision tower and its projector, a file of their own: convert with --mmproj"

# GGUF name: (name in the checkpoint, shape of the weight there); each has a bias too.
Table = dict[str, tuple[str, tuple[str, ...]]]
BLOCK: Table = {
    "ln1": ("layer_norm1", ("hidden",)),
    "ln2": ("layer_norm2", ("hidden",)),
    "attn_q": ("self_attn.q_proj", ("hidden", "hidden")),
    "attn_k": ("self_attn.k_proj", ("hidden", "hidden")),
    "attn_v": ("self_attn.v_proj", ("hidden", "hidden")),
    "attn_out": ("self_attn.out_proj", ("hidden", "hidden")),
    "ffn_up": ("mlp.fc1", ("ffn", "hidden")),
    "ffn_down": ("mlp.fc2", ("hidden", "ffn")),
}
OUTER: Table = {"post_ln": ("post_layernorm", ("hidden",))}
CONNECTOR: Table = {
    "mm.1": ("linear_1", ("projector", "unshuffled")),
    "mm.2": ("linear_2", ("text", "projector")),
}
CONNECTOR_NORM: Table = {"mm.input_norm": ("layer_norm", ("unshuffled",))}


def text(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, str]]:
    """Return the text model as a checkpoint of its own, and what of the whole is not part of it."""
    tower = dict.fromkeys(
        starting(checkpoint.tensors, *TOWER_ROOTS, *CONNECTOR_ROOTS), TOWER_REASON
    )
    return text_checkpoint(checkpoint, "text_config", TEXT_ROOTS), tower


@dataclass(frozen=True)
class Vision:
    """The projector of a vision model: the tower, and the two layers behind it."""

    checkpoint: Checkpoint
    config: VisionConfig

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Vision:
        """Parse the config of the whole checkpoint."""
        return cls(checkpoint, VisionConfig.read(checkpoint.config))

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield the tower's tensors, then those of the two layers behind it."""
        config, names = self.config, self.checkpoint.tensors
        tower, connector = root(names, *TOWER_ROOTS), root(names, *CONNECTOR_ROOTS)
        sizes = _sizes(config)
        hidden, embeddings = config.hidden_size, f"{tower}embeddings."
        patch = (config.n_channels, config.patch_size, config.patch_size)
        flat = Source(f"{embeddings}patch_embedding.weight", (hidden, math.prod(patch)))
        kernel = partial(patch_kernel, patch=patch)
        positions = (config.n_patches, hidden)
        yield PlannedTensor("v.patch_embd.weight", (hidden, *patch), (flat,), kernel)
        yield _copied("v.patch_embd.bias", f"{embeddings}patch_embedding.bias", (hidden,))
        yield _copied("v.position_embd.weight", f"{embeddings}position_embedding.weight", positions)
        yield from _expand(OUTER, sizes, "v.", tower)
        for i in range(config.n_layers):
            yield from _expand(BLOCK, sizes, f"v.blk.{i}.", f"{tower}encoder.layers.{i}.")
        yield from _expand(CONNECTOR, sizes, "", connector)
        if config.projector_norm:
            yield from _expand(CONNECTOR_NORM, sizes, "", connector)

    def left_out(self, names: Iterable[str]) -> dict[str, str]:
        """Return which of these names are the text model's or the tower's unused head."""
        names = list(names)
        text = dict.fromkeys(starting(names, *TEXT_ROOTS, "lm_head."), TEXT_REASON)
        head = f"{root(names, *TOWER_ROOTS)}head."
        return text | dict.fromkeys(starting(names, head), HEAD_REASON)

    def own_name(self, name: str) -> str:
        """Return what the checkpoint calls a tensor that another transformers named."""
        for roots in (TOWER_ROOTS, CONNECTOR_ROOTS):
            if found := next((r for r in roots if name.startswith(r)), ""):
                return root(self.checkpoint.tensors, *roots) + name.removeprefix(found)
        return name

    def notes(self) -> list[str]:
        """Return nothing: whatever converts runs."""
        return []

    def metadata(self) -> Metadata:
        """Return the ``clip.*`` keys.

        Raises:
            CheckpointError: the image processor's settings are missing.

        """
        config = self.config
        u32, f32, bool_ = ValueType.UINT32, ValueType.FLOAT32, ValueType.BOOL
        mean, std = _pixel_statistics(self.checkpoint.path)
        keys = {
            "has_vision_encoder": Value(bool_, True),
            "vision.projection_dim": Value(u32, config.text_size),
            "vision.image_size": Value(u32, IMAGE_SIZE),
            "vision.patch_size": Value(u32, config.patch_size),
            "vision.embedding_length": Value(u32, config.hidden_size),
            "vision.feed_forward_length": Value(u32, config.feed_forward),
            # -1 is the last layer, whose output all layers are needed for
            "vision.block_count": Value(u32, config.n_layers + config.feature_layer + 1),
            "vision.attention.head_count": Value(u32, config.n_heads),
            "vision.image_mean": Value(ValueType.ARRAY, mean, f32),
            "vision.image_std": Value(ValueType.ARRAY, std, f32),
            "projector_type": Value(ValueType.STRING, "lfm2"),
            "vision.attention.layer_norm_epsilon": Value(f32, config.norm_eps),
            "vision.projector.scale_factor": Value(u32, config.downsample),
            "use_gelu": Value(bool_, True),
        }
        return {f"clip.{key}": value for key, value in keys.items()}


def _sizes(config: VisionConfig) -> dict[str, int]:
    """Return the sizes that the tables name."""
    return {
        "hidden": config.hidden_size,
        "ffn": config.feed_forward,
        "unshuffled": config.hidden_size * config.downsample**2,
        "projector": config.projector_size,
        "text": config.text_size,
    }


def _expand(
    table: Table, sizes: Mapping[str, int], to: str, source: str
) -> Iterator[PlannedTensor]:
    for name, (hf, dims) in table.items():
        shape = tuple(sizes[dim] for dim in dims)
        yield _copied(f"{to}{name}.weight", f"{source}{hf}.weight", shape)
        yield _copied(f"{to}{name}.bias", f"{source}{hf}.bias", shape[:1])


def _copied(name: str, source: str, shape: tuple[int, ...]) -> PlannedTensor:
    return PlannedTensor(name, shape, (Source(source, shape),))


def patch_kernel(rows: NDArray[np.float32], patch: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return a linear layer over patches (row, column, channel) as a convolution's kernel.

    (hidden, height * width * channels) becomes (hidden, channels, height, width); ``patch`` is
    (channels, height, width).
    """
    channels, height, width = patch
    return rows.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)


def _pixel_statistics(folder: Path) -> list[list[float]]:
    """Read ``image_mean`` and ``image_std``, one number for each of three channels."""
    settings: dict[str, Any] = {}
    for file in PROCESSORS:
        content = read_json(folder / file)
        for inner in ("media_proc_cfg", "image_processor"):
            content |= get(content, dict, inner, default={}, file=str(folder / file))
        settings |= content
    return [_colours(folder, key, settings.get(key)) for key in ("image_mean", "image_std")]


def _colours(folder: Path, key: str, values: Any) -> list[float]:
    numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
    if not isinstance(values, list) or not numbers or len(values) != COLOURS:
        raise CheckpointError(
            f"{folder}: {' or '.join(PROCESSORS)} should give {key!r}, as {COLOURS} "
            "numbers; copy the file from the model that this one was made from"
        )
    return [float(value) for value in values]
