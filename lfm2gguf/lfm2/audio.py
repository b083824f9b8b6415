"""Audio: LFM2-Audio and LFM2.5-Audio. One file is the text model, another the projector (mmproj).

The projector holds the FastConformer encoder, the two layers that bring its frames into the text
model's space, and the embedding of audio codes. llama.cpp cannot represent the depthformer, which
makes speech. What it needs is said in conversion/lfm2.py (``LFM2AudioModel``),
conversion/gemma.py (``ConformerAudioModel``) and tools/mtmd/clip.cpp, commit 0c1e57098; the names
of the checkpoint are those of the modules of liquid-audio 1.3.0 (model/lfm2_audio.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfm2gguf.checkpoint import Checkpoint
from lfm2gguf.gguf_file import Metadata, Value, ValueType
from lfm2gguf.lfm2.audio_config import AudioConfig
from lfm2gguf.lfm2.plan import PlannedTensor, Source
from lfm2gguf.lfm2.text_part import TEXT_REASON, starting, text_checkpoint

LAYER_NORM_EPS = 1e-5  # PyTorch's default, which no config states
BATCH_NORM_EPS = 1e-5  # too
MODEL_SIZE = 512  # the only one that llama.cpp computes

ENCODER_REASON = (
    "of the audio encoder and its projector, a file of their own: convert with --mmproj"
)
SPEECH_REASON = "of speech output, which llama.cpp does not have for LFM2-Audio"
TRAINING_REASON = "of training only"
ENCODER_PARTS = ("conformer.", "audio_adapter.", "audio_embedding.")
SPEECH_PARTS = ("depthformer.", "depth_linear.", "depth_embeddings.", "codebook_offsets")
TRAINING_PARTS = ("audio_loss_weights",)
BATCHES_SEEN = ".num_batches_tracked"

# GGUF name: (name in the checkpoint, shape of the weight there); each has a bias too.
Table = dict[str, tuple[str, tuple[str, ...]]]
SUBSAMPLING: Table = {
    "a.conv1d.0": ("conformer.pre_encode.conv.0", ("channels", "1", "3", "3")),
    "a.conv1d.2": ("conformer.pre_encode.conv.2", ("channels", "1", "3", "3")),
    "a.conv1d.3": ("conformer.pre_encode.conv.3", ("channels", "channels", "1", "1")),
    "a.conv1d.5": ("conformer.pre_encode.conv.5", ("channels", "1", "3", "3")),
    "a.conv1d.6": ("conformer.pre_encode.conv.6", ("channels", "channels", "1", "1")),
}
OUTER: Table = {
    "a.pre_encode.out": ("conformer.pre_encode.out", ("model", "subsampled")),
    "mm.a.mlp.0": ("audio_adapter.model.0", ("model",)),
    "mm.a.mlp.1": ("audio_adapter.model.1", ("adapter", "model")),
    "mm.a.mlp.3": ("audio_adapter.model.3", ("text", "adapter")),
}
BLOCK: Table = {
    "ffn_norm": ("norm_feed_forward1", ("model",)),
    "ffn_up": ("feed_forward1.linear1", ("ffn", "model")),
    "ffn_down": ("feed_forward1.linear2", ("model", "ffn")),
    "ln1": ("norm_self_att", ("model",)),
    "attn_q": ("self_attn.linear_q", ("model", "model")),
    "attn_k": ("self_attn.linear_k", ("model", "model")),
    "attn_v": ("self_attn.linear_v", ("model", "model")),
    "attn_out": ("self_attn.linear_out", ("model", "model")),
    "norm_conv": ("norm_conv", ("model",)),
    "conv_pw1": ("conv.pointwise_conv1", ("2 model", "model", "1")),
    "conv_dw": ("conv.depthwise_conv", ("model", "1", "kernel")),
    "conv_pw2": ("conv.pointwise_conv2", ("model", "model", "1")),
    "ffn_norm_1": ("norm_feed_forward2", ("model",)),
    "ffn_up_1": ("feed_forward2.linear1", ("ffn", "model")),
    "ffn_down_1": ("feed_forward2.linear2", ("model", "ffn")),
    "ln2": ("norm_out", ("model",)),
}
# The same, without biases, with their full names.
BLOCK_ALONE: Table = {
    "linear_pos.weight": ("self_attn.linear_pos.weight", ("model", "model")),
    "pos_bias_u": ("self_attn.pos_bias_u", ("heads", "head")),
    "pos_bias_v": ("self_attn.pos_bias_v", ("heads", "head")),
}
CODES: Table = {
    "a.position_embd.weight": ("audio_embedding.embedding.weight", ("codes", "text")),
    "a.position_embd_norm.weight": ("audio_embedding.embedding_norm.weight", ("text",)),
}
CODES_HEAD_NAME = "audio_embedding.to_logits.weight"
CODES_HEAD: Table = {"a.embd_to_logits.weight": (CODES_HEAD_NAME, ("codes", "text"))}


def text(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, str]]:
    """Return the text model as a checkpoint of its own, and what of the whole is not part of it."""
    names = checkpoint.tensors
    others = dict.fromkeys(starting(names, *ENCODER_PARTS), ENCODER_REASON) | _of_neither(names)
    return text_checkpoint(checkpoint, "lfm", {"lfm.": "model."}), others


@dataclass(frozen=True)
class Audio:
    """The projector of an audio model: the encoder, the adapter and the codes' embedding."""

    checkpoint: Checkpoint
    config: AudioConfig

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Audio:
        """Parse the config of the whole checkpoint."""
        return cls(checkpoint, AudioConfig.read(checkpoint.config))

    def tensors(self) -> Iterator[PlannedTensor]:
        """Yield the encoder's tensors, the adapter's, and the codes' embedding."""
        sizes = _sizes(self.config)
        yield from _with_bias(SUBSAMPLING | OUTER, sizes)
        for i in range(self.config.n_layers):
            to, source = f"a.blk.{i}.", f"conformer.layers.{i}."
            yield from _with_bias(BLOCK, sizes, to, source)
            yield from _expand(BLOCK_ALONE, sizes, to, source)
            yield from _batch_norm(f"{to}conv_norm", f"{source}conv.batch_norm", sizes["model"])
        has_head = not self.config.tied or CODES_HEAD_NAME in self.checkpoint.tensors
        yield from _expand(CODES | CODES_HEAD if has_head else CODES, sizes)

    def left_out(self, names: Iterable[str]) -> dict[str, str]:
        """Return which of these names are the text model's, of speech, or of training only."""
        names = list(names)
        counters = (name for name in names if name.endswith(BATCHES_SEEN))
        return (
            _of_neither(names)
            | dict.fromkeys(starting(names, "lfm."), TEXT_REASON)
            | dict.fromkeys(counters, TRAINING_REASON)
            | {CODES_HEAD_NAME: "the config ties it to the embedding"}
        )

    def own_name(self, name: str) -> str:
        """Return the name: every checkpoint has the same ones."""
        return name

    def notes(self) -> list[str]:
        """Return what a user may not expect: llama.cpp ends the process on another width."""
        if (size := self.config.model_size) == MODEL_SIZE:
            return []
        return [
            f"llama.cpp does not run this encoder: its width (d_model) is {size}, and the "
            f"positions in tools/mtmd/models/conformer.cpp and clip.cpp are made for {MODEL_SIZE}"
        ]

    def metadata(self) -> Metadata:
        """Return the ``clip.*`` keys."""
        config, u32 = self.config, ValueType.UINT32
        keys = {
            "has_audio_encoder": Value(ValueType.BOOL, True),
            "audio.projection_dim": Value(u32, config.text_size),
            "audio.embedding_length": Value(u32, config.model_size),
            "audio.feed_forward_length": Value(u32, config.model_size),  # not used by the loader
            "audio.block_count": Value(u32, config.n_layers),
            "audio.attention.head_count": Value(u32, config.n_heads),
            "projector_type": Value(ValueType.STRING, "lfm2a"),
            "audio.num_mel_bins": Value(u32, config.n_mel_bins),
            "audio.attention.layer_norm_epsilon": Value(ValueType.FLOAT32, LAYER_NORM_EPS),
        }
        return {f"clip.{key}": value for key, value in keys.items()}


def _expand(
    table: Table, sizes: Mapping[str, int], to: str = "", source: str = ""
) -> Iterator[PlannedTensor]:
    for name, (hf, dims) in table.items():
        stored, shape = _shapes(sizes, dims)
        yield PlannedTensor(f"{to}{name}", shape, (Source(f"{source}{hf}", stored),))


def _with_bias(
    table: Table, sizes: Mapping[str, int], to: str = "", source: str = ""
) -> Iterator[PlannedTensor]:
    for name, (hf, dims) in table.items():
        stored, shape = _shapes(sizes, dims)
        size = stored[:1]
        flat = (*size, 1, 1) if len(shape) == 4 else size  # added to an image's channels
        weight, bias = Source(f"{source}{hf}.weight", stored), Source(f"{source}{hf}.bias", size)
        yield PlannedTensor(f"{to}{name}.weight", shape, (weight,))
        yield PlannedTensor(f"{to}{name}.bias", flat, (bias,))


def _sizes(config: AudioConfig) -> dict[str, int]:
    bins = config.n_mel_bins
    for _ in range(3):  # strides of 2, kernels of 3, padding of 1
        bins = (bins - 1) // 2 + 1
    return {
        "1": 1,
        "3": 3,
        "channels": config.channels,
        "subsampled": config.channels * bins,
        "model": config.model_size,
        "2 model": 2 * config.model_size,
        "ffn": config.expansion * config.model_size,
        "kernel": config.kernel,
        "heads": config.n_heads,
        "head": config.model_size // config.n_heads,
        "adapter": config.adapter_size,
        "text": config.text_size,
        "codes": config.n_codes,
    }


def _shapes(
    sizes: Mapping[str, int], dims: tuple[str, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a weight's shape in the checkpoint and in the file: kernels over time as matrices."""
    stored = tuple(sizes[dim] for dim in dims)
    return stored, tuple(
        n for n, dim in zip(stored, dims, strict=True) if dim != "1" or len(dims) > 3
    )


def _batch_norm(to: str, source: str, size: int) -> Iterator[PlannedTensor]:
    """Fold a batch norm's four vectors into a weight and a bias.

    The square root is correctly rounded. PyTorch's, which llama.cpp's converter takes, need not
    be (it is MKL's): its files may differ here by two units in the last place.
    """
    weight, bias, mean, variance = (
        Source(f"{source}.{part}", (size,))
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    yield PlannedTensor(f"{to}.weight", (size,), (weight, variance), _folded_weight)
    yield PlannedTensor(f"{to}.bias", (size,), (bias, mean, weight, variance), _folded_bias)


Vector = NDArray[np.float32]


def _folded_weight(weight: Vector, variance: Vector) -> Vector:
    deviation: Vector = np.sqrt(variance + np.float32(BATCH_NORM_EPS))
    folded: Vector = weight / deviation
    return folded


def _folded_bias(bias: Vector, mean: Vector, weight: Vector, variance: Vector) -> Vector:
    return bias - mean * _folded_weight(weight, variance)


def _of_neither(names: Iterable[str]) -> dict[str, str]:
    """Return what neither file holds."""
    names = list(names)
    return dict.fromkeys(starting(names, *SPEECH_PARTS), SPEECH_REASON) | dict.fromkeys(
        starting(names, *TRAINING_PARTS), TRAINING_REASON
    )
