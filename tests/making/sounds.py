"""A small LFM2-Audio that llama.cpp can run, and something for it to hear.

llama.cpp's encoder (tools/mtmd/models/conformer.cpp and clip.cpp, commit 0c1e57098) has 128 mel
bins, states of 512 and convolutions over 9 frames written into it; the rest is as small as can be.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from tests.making.multimodal import (
    AUDIO,
    DETOKENIZER,
    Case,
    audio_integers,
    audio_shapes,
    detokenizer_shapes,
)

RATE = 16_000
PREPROCESSOR: dict[str, Any] = {
    "sample_rate": RATE,
    "normalize": "per_feature",
    "window_size": 0.025,
    "window_stride": 0.01,
    "window": "hann",
    "features": 128,
    "n_fft": 512,
    "log": True,
    "frame_splicing": 1,
    "dither": 1e-5,
    "pad_to": 0,
    "pad_value": 0.0,
}
ENCODER: dict[str, Any] = {
    **AUDIO["encoder"],
    "feat_in": 128,
    "n_layers": 2,
    "d_model": 512,
    "n_heads": 8,
    "ff_expansion_factor": 1,
    "subsampling_conv_channels": 32,
    "causal_downsampling": False,
    "reduction": None,
    "reduction_position": None,
    "reduction_factor": 1,
    "att_context_size": [-1, -1],
    "pos_emb_max_len": 5000,
    "conv_context_size": None,
    "dropout": 0.1,
    "dropout_pre_encoder": 0.1,
    "dropout_emb": 0.0,
    "dropout_att": 0.1,
}
CONFIG: dict[str, Any] = AUDIO | {"preprocessor": PREPROCESSOR, "encoder": ENCODER}
AUDIO_CASE = Case(
    CONFIG, audio_shapes(CONFIG), dtype="F32", integers=audio_integers(CONFIG), by_fan_in=True
)
# liquid-audio's detokenizer has these sizes, and eight codebooks of 2048, written into it.
SPECTRUM = 1282
DETOKENIZER_CONFIG = DETOKENIZER | {
    "hidden_size": 512,
    "intermediate_size": 256,
    "output_size": SPECTRUM,
}
DETOKENIZER_CASE = Case(
    DETOKENIZER_CONFIG, detokenizer_shapes(DETOKENIZER_CONFIG), dtype="F32", by_fan_in=True
)
FRAMES = 6  # of the detokenizer for each of the codes


def codes() -> np.ndarray:
    """Codes of eight codebooks (8, 8): 48 frames, which is more than the sliding window."""
    return np.random.default_rng(1).integers(0, 2048, (8, 8))


def sound(seconds: float = 1.3, rate: int = RATE) -> np.ndarray:
    """Three chirps, each louder and softer in its own time, over noise: float32 in -1 to 1."""
    t = np.arange(round(seconds * rate)) / rate
    chirps = [
        np.sin(2 * np.pi * (f * t + slope * t**2)) * (1 + np.cos(2 * np.pi * beat * t))
        for f, slope, beat in ((180, 400, 3), (900, -250, 5), (2400, 1100, 2))
    ]
    noise = np.random.default_rng(0).standard_normal(len(t))
    return np.asarray(0.1 * sum(chirps) + 0.01 * noise, np.float32)


def wav(samples: np.ndarray, rate: int = RATE, declared: int | None = None) -> bytes:
    """A WAV file of 16-bit samples (n,) or (n, channels); ``declared`` lies about its bytes.

    IBM and Microsoft, Multimedia Programming Interface and Data Specifications 1.0.
    """
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    data = np.round(samples * 32767).astype("<i2").tobytes()
    size = len(data) if declared is None else declared
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
    riff = min(size + len(body), 2**32 - 1)
    return b"RIFF" + struct.pack("<I", riff) + body + data


def flac(samples: int, rate: int = RATE) -> bytes:
    """The beginning of a FLAC file that counts so many samples (RFC 9639, section 8.2)."""
    fields = rate << 44 | 15 << 36 | samples  # one channel, 16 bits
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + fields.to_bytes(8, "big") + bytes(16)
    return b"fLaC\x80\0\0\x22" + info + bytes(1000)


def mp3(frames: int) -> bytes:
    """An MP3 file of fifty silent frames (MPEG 1, 128 kbit/s, 44.1 kHz) with a count of its own."""
    header, side_information, size = b"\xff\xfb\x90\x64", bytes(32), 417
    tag = header + side_information + b"Xing" + struct.pack(">II", 1, frames)
    return tag.ljust(size, b"\0") + 50 * header.ljust(size, b"\0")
