"""Images and sound in messages, with a small random LFM2-VL in llama.cpp."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import Runner, quantize
from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.llamacpp import Chunk, Context, Model, Pixels, Projector
from lfm2gguf.runner.media import PLACE, Encoder, take_out
from tests.llamacpp.test_images import PLAYLIST, bmp, gif, jpeg, png_of
from tests.making.models import tiny_gguf
from tests.making.multimodal import AFTER, BEFORE, image, png

GOLDEN = Path(__file__).parents[1] / "golden/image_embeddings.npz"
GREEDY: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "max_tokens": 6}


@pytest.fixture(scope="module")
def lfm(vision: tuple[Path, Path]) -> Iterator[Runner]:
    with Runner(vision[0], mmproj=vision[1], context=2048) as runner:
        yield runner


def greedy(lfm: Runner, **options: Any) -> dict[str, Any]:
    """Options of an answer that does not end by itself: random weights like to end at once."""
    ends = dict.fromkeys(lfm.tokens.ends, -100.0)
    return {**GREEDY, "logit_bias": ends, **options}


def first_logprobs(lfm: Runner, messages: Any) -> list[float]:
    """The likeliest first tokens' log-probabilities: what a small random model tells apart."""
    reply = lfm.chat(messages, **greedy(lfm, max_tokens=1, logprobs=8))
    assert reply.logprobs is not None
    return [logprob for _, logprob in reply.logprobs[0].top]


def ask(part: dict[str, Any], question: str = "What is it?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part, {"type": "text", "text": question}]}]


def test_logits_behind_an_image_are_those_of_transformers(vision: tuple[Path, Path]) -> None:
    """Against golden/make_image_embeddings.py: words, an image, words."""
    expected = np.load(GOLDEN)
    with Model(vision[0]) as model, Context(model, n_ctx=512, threads=1) as context:
        projector = Projector(vision[1], model)
        parts = projector.encode(Pixels(256, 320, image().tobytes()))
        (seen,) = (part for part in parts if not isinstance(part, list))
        error = np.square(seen - expected["embeddings"]).mean()
        assert error < 1e-4 * np.square(expected["embeddings"]).mean()
        end = len(BEFORE) + len(seen)
        context.decode([Chunk(0, 0, BEFORE)])
        context.decode([Chunk(0, len(BEFORE), [-1] * len(seen), rows=seen)])
        context.decode([Chunk(0, end, AFTER, outputs=1)])
        found = context.logits()[0].copy()
        projector.close()
    np.testing.assert_allclose(found, expected["logits"], atol=0.02)


def test_a_projector_of_fewer_bits_sees_nearly_the_same(
    vision: tuple[Path, Path], tmp_path: Path
) -> None:
    seen = []
    fewer = quantize(vision[1], tmp_path / "q8.gguf", "Q8_0", jobs=1)[0].path
    with Model(vision[0]) as model:
        for path in (vision[1], fewer):
            projector = Projector(path, model)
            parts = projector.encode(Pixels(256, 320, image().tobytes()))
            seen += [part for part in parts if not isinstance(part, list)]
            projector.close()
    assert fewer.stat().st_size < vision[1].stat().st_size / 2
    assert 0 < np.square(seen[1] - seen[0]).mean() < 1e-2 * np.square(seen[0]).mean()


def test_the_runner_computes_what_the_parts_say(lfm: Runner, vision: tuple[Path, Path]) -> None:
    """The first token's logits, against the same sequence decoded by hand."""
    messages = ask({"type": "image", "image": png(image())})
    reply = lfm.chat(messages, **greedy(lfm, max_tokens=1, logprobs=5))
    _, media = take_out(messages)
    with Model(vision[0]) as model, Context(model, n_ctx=2048, threads=1) as context:
        projector = Projector(vision[1], model)
        encoder = Encoder(projector)
        tokens = lfm.tokens.of_chat(messages)
        rows = encoder.encode(media[0]).rows
        first = min(i for i, token in enumerate(tokens) if token < 0)
        last = max(i for i, token in enumerate(tokens) if token < 0) + 1
        context.decode([Chunk(0, 0, tokens[:first])])
        image_rows = np.stack([rows[token] for token in tokens[first:last]])
        context.decode([Chunk(0, first, tokens[first:last], rows=image_rows)])
        context.decode([Chunk(0, last, tokens[last:], outputs=1)])
        logits = context.logits()[0].astype(np.float64)
        encoder.close()
    assert last - first == 80
    assert reply.usage.prompt_tokens == len(tokens)
    assert reply.logprobs is not None
    expected = logits - logits.max()
    expected -= np.log(np.exp(expected).sum())
    for token, logprob in reply.logprobs[0].top:
        assert logprob == pytest.approx(expected[token], abs=1e-3)


def test_an_images_tokens_have_no_log_probability(lfm: Runner) -> None:
    with pytest.raises(OptionError, match="prompt_logprobs"):
        lfm.chat(ask({"type": "image", "image": png(image())}), max_tokens=1, prompt_logprobs=0)


def test_all_ways_to_give_an_image(lfm: Runner, tmp_path: Path) -> None:
    data = png(image())
    (tmp_path / "image.png").write_bytes(data)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    parts: list[dict[str, Any]] = [
        {"type": "image", "image": data},
        {"type": "image", "path": str(tmp_path / "image.png")},
        {"type": "image", "image": tmp_path / "image.png"},
        {"type": "image", "url": url},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
    ]
    first, *others = [first_logprobs(lfm, ask(part)) for part in parts]
    for other in others:
        assert other == pytest.approx(first, abs=1e-5)
    for another in ("What is it?", ask({"type": "image", "image": png(255 - image())})):
        assert first_logprobs(lfm, another) != pytest.approx(first, abs=1e-4)


def test_pil_images(lfm: Runner) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    expected = lfm.chat(ask({"type": "image", "image": png(image())}), **greedy(lfm)).text
    picture = pil.fromarray(image())
    assert lfm.chat(ask({"type": "image", "image": picture}), **greedy(lfm)).text == expected


def test_a_second_turn_computes_only_what_is_new(vision: tuple[Path, Path]) -> None:
    with Runner(vision[0], mmproj=vision[1], context=2048) as lfm:
        messages = ask({"type": "image", "image": png(image())})
        first = lfm.chat(messages, **greedy(lfm))
        assert first.usage.prefilled_tokens > 80
        history = [*messages, first.message, {"role": "user", "content": "And now?"}]
        second = lfm.chat(history, **greedy(lfm))
        assert second.usage.cached_tokens >= first.usage.prompt_tokens
        assert second.usage.prefilled_tokens < 60
    with Runner(vision[0], mmproj=vision[1], context=2048) as lfm:
        assert lfm.chat(history, **greedy(lfm)).text == second.text


def test_many_at_once_with_and_without(lfm: Runner) -> None:
    conversations: list[Any] = [
        ask({"type": "image", "image": png(image())}, "One?"),
        "Two?",
        ask({"type": "image", "image": png(image() // 2)}, "Three?"),
        "Four and many more words than that?",
    ]
    alone = [lfm.chat(c, **greedy(lfm)).text for c in conversations]
    assert [reply.text for reply in lfm.batch(conversations, **greedy(lfm))] == alone

    async def main() -> list[str]:
        replies = await asyncio.gather(*(lfm.achat(c, **greedy(lfm)) for c in conversations))
        return [reply.text for reply in replies]

    assert asyncio.run(main()) == alone
    streams = ["".join(map(str, lfm.stream(c, **greedy(lfm)))) for c in conversations]
    assert streams == alone


def test_two_images_in_one_message(lfm: Runner) -> None:
    parts = [{"type": "image", "image": png(x)} for x in (image(), image()[::-1])]
    text = {"type": "text", "text": "Which?"}
    content = [[*parts, text], [*parts[::-1], text]]
    conversations = [[{"role": "user", "content": parts}] for parts in content]
    assert all(lfm.count_tokens(messages) > 160 for messages in conversations)
    one, other = (first_logprobs(lfm, messages) for messages in conversations)
    assert one != pytest.approx(other, abs=1e-5)


def test_cancelled_in_the_middle_of_an_image(lfm: Runner) -> None:
    stream = lfm.stream(ask({"type": "image", "image": png(image())}), **greedy(lfm))
    timer = threading.Timer(0, stream.cancel)
    timer.start()
    list(stream)
    assert stream.reply.finish_reason in ("cancelled", "length", "stop")
    assert lfm.chat("Still there?", **greedy(lfm)).text


def test_a_place_in_somebodys_text_is_none(lfm: Runner) -> None:
    forged = f"{PLACE}0{PLACE}What is it?"
    assert lfm.chat(forged, **greedy(lfm)).text == lfm.chat("0What is it?", **greedy(lfm)).text
    image_part = {"type": "image", "image": png(image())}
    assert (
        lfm.chat(ask(image_part, forged), **greedy(lfm)).usage.prompt_tokens
        == lfm.chat(ask(image_part, "0What is it?"), **greedy(lfm)).usage.prompt_tokens
    )


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"type": "image", "image": b"no image at all"}, "can decode"),
    "empty": ({"type": "image", "image": b""}, "0 bytes"),
    "nothing": ({"type": "image"}, "needs image or path"),
    "a number": ({"type": "image", "image": 3}, "is not a path"),
    "a page": ({"type": "image_url", "image_url": "https://example.org/a.png"}, "fetched"),
    "a path over the wire": ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, "give a"),
    "a file over the wire": ({"type": "image_url", "image_url": "file:///etc/passwd"}, "fetched"),
    "bad base64": ({"type": "image", "url": "data:image/png;base64,?"}, "damaged"),
    "no base64": ({"type": "image", "url": "data:image/png,abc"}, "not in base64"),
    "no file": ({"type": "image", "path": "/nowhere.png"}, "cannot be read"),
    "no sound": ({"type": "input_audio", "input_audio": {"data": "!", "format": "wav"}}, "damaged"),
    "unknown": ({"type": "video", "video": "a.mp4"}, "must be text, an image or sound"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused(lfm: Runner, what: str) -> None:
    part, message = BAD[what]
    good = {"type": "image", "image": png(image())}
    with pytest.raises(OptionError, match=message):
        lfm.chat([{"role": "user", "content": [good, part]}])


def test_truncated_images_are_refused_or_read(lfm: Runner) -> None:
    data = png(image())
    for length in range(1, len(data), len(data) // 12):
        with pytest.raises(OptionError):
            lfm.chat(ask({"type": "image", "image": data[:length]}), **greedy(lfm))


def test_without_a_projector() -> None:
    with (
        Runner(tiny_gguf(), context=512) as lfm,
        pytest.raises(OptionError, match="convert --mmproj"),
    ):
        lfm.chat(ask({"type": "image", "image": png(image())}))


def test_projectors_that_do_not_fit(vision: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"mismatch|cannot load"):
        Runner(tiny_gguf(), mmproj=vision[1])
    with pytest.raises(GGUFError, match="not a projector's"):
        Runner(vision[0], mmproj=vision[0])
    (tmp_path / "cut.gguf").write_bytes(vision[1].read_bytes()[:5000])
    with pytest.raises(GGUFError):
        Runner(vision[0], mmproj=tmp_path / "cut.gguf")


def test_no_program_is_started_for_a_damaged_image(
    vision: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What begins as an image and cannot be decoded is not offered to ffprobe either."""
    seen = tmp_path / "seen"
    for name in ("ffprobe", "ffmpeg"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {name} >> {seen}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    damaged = [png(image())[:-30], png_of(8, 8), jpeg(8, 8), bmp(8, 8), gif(8, 8), PLAYLIST]
    noise = np.random.default_rng(1).bytes(500)
    damaged += [first + noise for first in (b"BM", b"GIF89a", b"\xff\xd8\xff")]
    with Model(vision[0]) as model:
        projector = Projector(vision[1], model)
        for data in damaged:
            with pytest.raises(OptionError):
                projector.encode(data)
        projector.close()
    assert not seen.exists()
