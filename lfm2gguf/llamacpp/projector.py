"""Images and sound: what a projector (mmproj) makes of them for the text model.

llama.cpp's libmtmd, which llama-cpp-python installs beside libllama (``tools/mtmd/mtmd.h``).
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfm2gguf.errors import GGUFError, OptionError, RuntimeFailureError, UnsupportedError
from lfm2gguf.install import install_command
from lfm2gguf.llamacpp.batch import Floats
from lfm2gguf.llamacpp.bindings import bindings
from lfm2gguf.llamacpp.device import default_threads
from lfm2gguf.llamacpp.images import check_medium, check_size
from lfm2gguf.llamacpp.library import Closed, captured_log, last_words, log_callback
from lfm2gguf.llamacpp.model import Model
from lfm2gguf.llamacpp.sound import declared_seconds

LONGEST_SOUND = 3600.0  # seconds, where the encoder has no limit of its own
SHORTEST_SOUND = 0.02  # two frames: with one mtmd-audio.cpp aborts (GGML_ASSERT)
NOWHERE = os.fsencode(os.devnull)  # where libmtmd looks for ffprobe: no folder, so never found

_TEXT = 0  # MTMD_INPUT_CHUNK_TYPE_TEXT


@dataclass(frozen=True)
class Pixels:
    """A decoded image: ``data`` holds ``height * width`` RGB triples of bytes."""

    width: int
    height: int
    data: bytes


class Projector:
    """An image or audio encoder beside a text model. One thread at a time.

    ``longest_sound`` is in seconds.

    Raises:
        GGUFError: llama.cpp cannot load it, or it belongs to another model.
        UnsupportedError: its embeddings need another way of decoding.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Model,
        *,
        threads: int | None = None,
        longest_sound: float | None = None,
    ) -> None:
        self._mtmd = mtmd = _library()
        self._context: Any = None
        self.path = Path(path)
        self._model, self._longest_sound = model, longest_sound or LONGEST_SOUND
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = model.offloaded > 0
        params.n_threads = threads or default_threads()
        params.print_timings, params.warmup = False, False
        with captured_log() as log:
            _library_log(mtmd)
            self._context = mtmd.mtmd_init_from_file(os.fsencode(self.path), model._pointer, params)
        if not self._context:
            raise GGUFError(f"{self.path}: llama.cpp cannot load it: {last_words(log)}")
        self.sees = bool(mtmd.mtmd_support_vision(self._context))
        self.hears = bool(mtmd.mtmd_support_audio(self._context))
        if mtmd.mtmd_decode_use_mrope(self._context):
            self.close()
            raise UnsupportedError(f"{self.path}: this projector needs positions of M-RoPE")

    def close(self) -> None:
        """Free the encoder; the model goes after it."""
        if self._context:
            self._mtmd.mtmd_free(self._context)
            self._context, self._mtmd = None, Closed()

    def encode(self, media: bytes | Pixels) -> list[list[int] | Floats]:
        """Return what stands for an image or a sound in a prompt, in order.

        Lists of token ids (markers around tiles) and embeddings, ``(tokens, n_embd)`` float32.
        ``media`` is a file as it is: PNG, JPEG, BMP, GIF (stb_image), WAV, MP3, FLAC (miniaudio,
        resampled to what the encoder wants), or pixels.

        Raises:
            OptionError: the medium cannot be decoded, or is too large, too short or too long.
        """
        bitmap = self._bitmap(media)
        chunks = self._mtmd.mtmd_input_chunks_init()
        try:
            self._check(bitmap)
            self._cut(bitmap, chunks)
            count = self._mtmd.mtmd_input_chunks_size(chunks)
            return [self._part(self._mtmd.mtmd_input_chunks_get(chunks, i)) for i in range(count)]
        finally:
            self._mtmd.mtmd_input_chunks_free(chunks)
            self._mtmd.mtmd_bitmap_free(bitmap)

    def _bitmap(self, media: bytes | Pixels) -> Any:
        mtmd = self._mtmd
        data = media.data if isinstance(media, Pixels) else media
        if isinstance(media, Pixels):
            check_size(media.width, media.height)
        else:
            check_medium(media)
        if self.hears and isinstance(media, bytes):
            self._check_length(declared_seconds(media), shortest=0)
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        with captured_log() as log:
            if isinstance(media, Pixels):
                bitmap = mtmd.mtmd_bitmap_init(media.width, media.height, buffer)
            else:
                options = mtmd.mtmd_helper_init_opt_default()
                options.video_params.ffmpeg_bin_dir = NOWHERE
                bitmap = mtmd.mtmd_helper_bitmap_init_from_buf(
                    self._context, buffer, len(data), False, options
                )
        if not bitmap:
            raise OptionError(
                f"{len(data)} bytes are not an image or sound that llama.cpp can decode "
                f"({last_words(log)}): images as PNG, JPEG, BMP or GIF, sound as WAV, MP3 or FLAC"
            )
        return bitmap

    def _check(self, bitmap: Any) -> None:
        """Refuse what this encoder is not for, and sounds at which it would abort."""
        mtmd, name = self._mtmd, self.path.name
        is_audio = mtmd.mtmd_bitmap_is_audio(bitmap)
        if is_audio and not self.hears:
            raise OptionError(f"{name} is for images: it cannot take sound")
        if not is_audio and not self.sees:
            raise OptionError(f"{name} is for sound: it cannot take images")
        if is_audio:
            rate = mtmd.mtmd_get_audio_sample_rate(self._context)
            self._check_length(mtmd.mtmd_bitmap_get_nx(bitmap) / rate)

    def _check_length(self, seconds: float, shortest: float = SHORTEST_SOUND) -> None:
        if not shortest <= seconds <= self._longest_sound:
            raise OptionError(
                f"the sound lasts {seconds:.4g} s; {self.path.name} takes {SHORTEST_SOUND:g} to "
                f"{self._longest_sound:.5g} s: give it in pieces of that length"
            )

    def _cut(self, bitmap: Any, chunks: Any) -> None:
        """Cut the medium into tiles, with the model's own markers around them."""
        mtmd = self._mtmd
        marker = mtmd.mtmd_default_marker()
        prompt = mtmd.mtmd_input_text(marker, len(marker), False, True)
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        with captured_log() as log:
            status = mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(prompt), bitmaps, 1)
        if status:
            raise OptionError(f"llama.cpp cannot prepare this image or sound: {last_words(log)}")

    def _part(self, chunk: Any) -> list[int] | Floats:
        mtmd = self._mtmd
        if mtmd.mtmd_input_chunk_get_type(chunk) == _TEXT:
            count = ctypes.c_size_t()
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            found = [int(token) for token in tokens[: count.value]]
            if min(found, default=0) < 0:  # LLAMA_TOKEN_NULL
                raise UnsupportedError(
                    f"{self.path}: its markers around tiles are not in the model's vocabulary: "
                    "take the model and the projector of the same checkpoint"
                )
            return found
        if mtmd.mtmd_decode_use_non_causal(self._context, chunk):
            raise UnsupportedError(f"{self.path}: this projector needs attention without a mask")
        with captured_log() as log:
            status = mtmd.mtmd_encode_chunk(self._context, chunk)
        if status:
            raise RuntimeFailureError(f"llama.cpp cannot encode the medium: {last_words(log)}")
        rows = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        output = mtmd.mtmd_get_output_embd(self._context)
        return np.ctypeslib.as_array(output, (rows, self._model.n_embd)).copy()


def _library() -> Any:
    try:
        return bindings("mtmd_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        raise UnsupportedError(
            f"the installed llama-cpp-python has no library for images and sound ({error}): "
            f"{install_command('run', '--upgrade')}"
        ) from error


def _library_log(mtmd: Any) -> None:
    """Libmtmd keeps two logs of its own; both go where llama.cpp's goes."""
    for name in ("mtmd_log_set", "mtmd_helper_log_set"):
        getattr(mtmd, name)(log_callback(), None)
