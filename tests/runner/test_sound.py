"""Sound in messages, with a small random LFM2-Audio in llama.cpp; and speech, which is not."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import Runner, convert, verify
from lfm2gguf.errors import OptionError, UnsupportedError
from lfm2gguf.llamacpp import Chunk, Context, Model, Projector
from tests.making.models import tiny_gguf
from tests.making.multimodal import AFTER, BEFORE, CASES, image, make_multimodal, png
from tests.making.sounds import RATE, flac, mp3, sound, wav
from tests.runner.test_media import ask, first_logprobs, greedy

GOLDEN = Path(__file__).parents[1] / "golden/audio_embeddings.npz"
TOKENS = 17  # of sound(): 131 frames of 10 ms, eight to a token


@pytest.fixture(scope="module")
def lfm(audio: tuple[Path, Path]) -> Iterator[Runner]:
    with Runner(audio[0], mmproj=audio[1], context=2048) as runner:
        yield runner


def test_logits_behind_a_sound_are_those_of_liquid_audio(audio: tuple[Path, Path]) -> None:
    """Against golden/make_audio_embeddings.py: words, a sound, words."""
    expected = np.load(GOLDEN)
    with Model(audio[0]) as model, Context(model, n_ctx=512, threads=1) as context:
        projector = Projector(audio[1], model)
        (heard,) = projector.encode(wav(sound()))
        assert not isinstance(heard, list)
        # 16 bits a sample, which the golden sound does not have
        error = np.square(heard - expected["embeddings"]).mean()
        assert error < 1e-4 * np.square(expected["embeddings"]).mean()
        context.decode([Chunk(0, 0, BEFORE)])
        context.decode([Chunk(0, len(BEFORE), [-1] * TOKENS, rows=heard)])
        context.decode([Chunk(0, len(BEFORE) + TOKENS, AFTER, outputs=1)])
        found = context.logits()[0].copy()
        projector.close()
    np.testing.assert_allclose(found, expected["logits"], atol=0.02)


def test_all_ways_to_give_a_sound(lfm: Runner, tmp_path: Path) -> None:
    data = wav(sound())
    (tmp_path / "sound.wav").write_bytes(data)
    encoded = base64.b64encode(data).decode()
    parts: list[dict[str, Any]] = [
        {"type": "audio", "audio": data},
        {"type": "audio", "path": str(tmp_path / "sound.wav")},
        {"type": "audio", "audio": tmp_path / "sound.wav"},
        {"type": "audio", "url": f"data:audio/wav;base64,{encoded}"},
        {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}},
    ]
    first, *others = [first_logprobs(lfm, ask(part)) for part in parts]
    for other in others:
        assert other == pytest.approx(first, abs=1e-5)
    for another in ("What is it?", ask({"type": "audio", "audio": wav(sound()[::-1])})):
        assert first_logprobs(lfm, another) != pytest.approx(first, abs=1e-3)


def test_other_rates_and_channels_are_converted(lfm: Runner) -> None:
    ours, stereo, faster, another = (
        _embeddings(lfm, {"type": "audio", "audio": data})
        for data in (
            wav(sound()),
            wav(np.stack([sound()] * 2, axis=1)),
            wav(_resampled(sound(), 44_100), 44_100),
            wav(sound()[::-1]),
        )
    )
    np.testing.assert_allclose(stereo, ours, atol=1e-4)
    assert faster.shape == ours.shape
    assert np.square(faster - ours).mean() < 0.1 * np.square(another - ours).mean()


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Band-limited, by NumPy's Fourier transform; miniaudio has to undo it."""
    n = len(samples) * rate // RATE
    return np.fft.irfft(np.fft.rfft(samples), n) * (n / len(samples))


def _embeddings(lfm: Runner, part: dict[str, Any]) -> np.ndarray:
    prompt = lfm.prompts.of_chat([{"role": "user", "content": [part]}])
    return np.stack([prompt.rows[token] for token in prompt.tokens if token < 0])


def test_a_second_turn_computes_only_what_is_new(audio: tuple[Path, Path]) -> None:
    with Runner(audio[0], mmproj=audio[1], context=2048) as lfm:
        messages = ask({"type": "audio", "audio": wav(sound())})
        first = lfm.chat(messages, **greedy(lfm))
        assert first.usage.prefilled_tokens > TOKENS
        history = [*messages, first.message, {"role": "user", "content": "And now?"}]
        second = lfm.chat(history, **greedy(lfm))
        assert second.usage.cached_tokens >= first.usage.prompt_tokens
    with Runner(audio[0], mmproj=audio[1], context=2048) as lfm:
        assert lfm.chat(history, **greedy(lfm)).text == second.text


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "tokens"), [(0.02, 1), (1.3, TOKENS), (60, 751)])
def test_the_tokens_of_a_sound(lfm: Runner, seconds: float, tokens: int) -> None:
    """Frames of 10 ms and one more; every third of three convolutions halves, rounding up."""
    plain = lfm.count_tokens([{"role": "user", "content": "Hm"}])
    heard = lfm.count_tokens(ask({"type": "audio", "audio": wav(sound(seconds))}, "Hm"))
    assert heard - plain == tokens


def _adpcm() -> bytes:
    form = struct.pack("<HHIIHHHH", 17, 1, RATE, 8000, 256, 4, 2, 505)
    body = b"WAVEfmt " + struct.pack("<I", 20) + form + b"data" + struct.pack("<I", 4) + bytes(4)
    return b"RIFF" + struct.pack("<I", len(body)) + body


# llama.cpp aborts, or asks for all memory, at those marked so.
REFUSED = {
    "no samples": (wav(sound(0)), "can decode"),
    "one sample (aborts)": (wav(sound(1 / RATE)), r"lasts 6.25e-05 s; .* takes 0.02 to 81.96 s"),
    "one frame (aborts)": (wav(sound(319 / RATE)), "lasts 0.01994 s"),
    "too long (aborts)": (wav(np.zeros(82 * RATE)), "lasts 82 s"),
    "a header alone": (wav(sound())[:36], "no data chunk"),
    "no format": (wav(sound()).replace(b"fmt ", b"tmf "), "no format before its data"),
    "no rate": (wav(sound(), 0), "of 0 Hz"),
    "a second for a sample (memory)": (wav(np.zeros(2_000_000), 1), "lasts 2e.06 s"),
    "ADPCM, whose headers underflow (memory)": (_adpcm(), "format 17"),
    "FLAC that counts 49 days (memory)": (flac(2**36 - 1), "lasts 4.295e.06 s"),
    "FLAC without sound": (flac(RATE), "can decode"),
    "MP3 that counts three years (memory)": (mp3(2**32 - 2), "lasts 1.031e.08 s"),
    "MP3 of zeros": (b"ID3" + bytes(1000), "can decode"),
    "an image": (png(image()), "cannot take images"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(lfm: Runner, what: str) -> None:
    data, message = REFUSED[what]
    with pytest.raises(OptionError, match=message):
        lfm.chat(ask({"type": "audio", "audio": data}))


@pytest.mark.parametrize(
    "data",
    [wav(sound(), declared=10**6), wav(sound(), declared=2**32 - 1), mp3(40), wav(sound())[:9999]],
    ids=["a megabyte", "4 GiB", "MP3", "cut off"],
)
def test_headers_that_promise_more_than_there_is(lfm: Runner, data: bytes) -> None:
    """What is there is heard."""
    assert lfm.chat(ask({"type": "audio", "audio": data}), **greedy(lfm)).text


@pytest.mark.slow
def test_the_longest_sound(lfm: Runner, audio: tuple[Path, Path]) -> None:
    """Just below the limit llama.cpp does not abort; the context is what ends it."""
    part = {"type": "audio", "audio": wav(np.zeros(int(81.96 * RATE)))}
    assert len(_embeddings(lfm, part)) == 1025


def test_sound_for_a_projector_of_images(vision: tuple[Path, Path]) -> None:
    with (
        Runner(vision[0], mmproj=vision[1], context=512) as lfm,
        pytest.raises(OptionError, match="does not support audio"),
    ):
        lfm.chat(ask({"type": "audio", "audio": wav(sound())}))


def test_a_detokenizer_is_no_model_of_text(tmp_path: Path) -> None:
    """llama.cpp loads it, and aborts when it is asked for tokens."""
    source = make_multimodal(CASES["audio_detokenizer"], tmp_path / "audio_detokenizer")
    file = convert(source, tmp_path, "F32", jobs=1).files[0].path
    with pytest.raises(UnsupportedError, match="audio detokenizer"):
        Runner(file)
    for reference in (source, file, tiny_gguf()):
        with pytest.raises(UnsupportedError, match="no vocabulary"):
            verify(file, reference)
