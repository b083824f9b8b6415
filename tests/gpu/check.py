"""Hold a device to the CPU's answers; say how they differ, and fail where they disagree.

    python -m tests.gpu.check DEVICE [MODEL.gguf ...] [--reference CHECKPOINT] [--shapes]
                              [--json FILE]

DEVICE is a name such as cuda, cuda:1, vulkan or rocm. Without files the example model is
converted to F16, Q8_0 and Q4_K_M; with --shapes random models of true widths are made as well
(shapes.py). Of each file: greedy answers with all layers offloaded and with two, and four at once
beside one after the other; where the two best tokens are near each other, devices may choose
differently. Logits of a fixed text, log-probabilities of the first tokens, and the file's KL
divergence from its checkpoint must be the CPU's within a tolerance; the weights must lie where
the layers are said to be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lfm2gguf import Runner, convert, verify
from lfm2gguf.llamacpp import Chunk, Context, Floats, Model, build_info, choose, devices
from lfm2gguf.runner import Reply
from lfm2gguf.verification import Engine, Material
from tests.gpu.shapes import make_shapes

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-lfm2"
TEXT = (np.__doc__ or "") + " ".join(map(str, range(200)))
QUESTIONS = [f"What does str.{name} do?" for name in ("upper", "split", "join", "strip")]
TWO = 2  # layers, for a model that is only in part on the device
NEAR = 0.1  # nats between the two best tokens, within which devices may choose differently
# Nats that the log-probability of an equal first token may differ by. The CPU rounds activations to
# 8 bits: of the example in Q4_K_M that alone makes 0.064, beside the same weights in F32.
LOGPROB = 0.1
LOGITS = 0.05  # root mean square of the differences of logits, over that of the logits
TOKENS = 256  # of the text whose logits are compared
KLD = 0.002  # nats that the file's divergence may differ by: verify's limit for a runtime is 0.003


@dataclass
class Found:
    """What was seen of one file on the device, and what is wrong with it."""

    file: str
    runs_on: list[str] = field(default_factory=list)
    equal_texts: int = 0
    texts: int = 0
    largest_logprob_difference: float = 0.0
    logits_difference: float = 0.0
    weights: dict[str, int] = field(default_factory=dict)
    kld: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def answers(
    path: Path, device: str, layers: int | None = None, parallel: int = 4
) -> tuple[str, list[Reply]]:
    """Answer the questions greedily, ``parallel`` at once; also say on what."""
    with Runner(
        path, device=device, gpu_layers=layers, context=2048, threads=1, parallel=parallel
    ) as lfm:
        replies = lfm.batch(
            QUESTIONS, temperature=0.0, repeat_penalty=1.0, max_tokens=24, logprobs=2
        )
        runs_on = lfm.device
    on = choose(device)
    wanted = on[0].backend if on else "CPU"
    assert runs_on.backend == wanted, f"asked for {device}, runs on {runs_on}"
    expected = 0 if not on else runs_on.layers if layers is None else layers
    assert runs_on.layers_offloaded == expected, f"{expected} layers expected, {runs_on}"
    return str(runs_on), replies


def parted(one: Reply, other: Reply) -> Iterator[str]:
    """Steps where greedy choices differ although the CPU's first is well ahead of its second."""
    for a, b in zip(one.logprobs or (), other.logprobs or (), strict=False):
        if a.token != b.token:
            if a.top[0][1] - a.top[1][1] > NEAR:
                yield f"{a.text!r} on the CPU, {b.text!r} on the device"
            return


def first_difference(one: Reply, other: Reply) -> float:
    """How far the log-probabilities of the first token are apart, where it is the same."""
    if not one.logprobs or not other.logprobs or one.logprobs[0].token != other.logprobs[0].token:
        return 0.0
    return abs(one.logprobs[0].logprob - other.logprobs[0].logprob)


def compare(found: Found, where: str, expected: Sequence[Reply], got: Sequence[Reply]) -> None:
    """Add what one way of running the file gave."""
    found.texts += len(got)
    found.equal_texts += sum(a.text == b.text for a, b in zip(expected, got, strict=True))
    for a, b in zip(expected, got, strict=True):
        found.problems += [f"{where}: {problem}" for problem in parted(a, b)]
        found.largest_logprob_difference = max(
            found.largest_logprob_difference, first_difference(a, b)
        )


def logits(path: Path, device: str) -> tuple[Floats, dict[str, int]]:
    """Read a fixed text at once: logits (tokens, vocabulary), and bytes of weights by place."""
    with Model(path, choose(device)) as model:
        ids = model.tokenize(TEXT)[:TOKENS]
        with Context(model, n_ctx=512, n_batch=512, n_outputs=TOKENS, threads=1) as context:
            context.decode([Chunk(0, 0, ids, len(ids))])
            return context.logits().copy(), model.buffers


def compare_logits(found: Found, path: Path, device: str) -> None:
    """Add how far the logits are apart, and where the weights lie."""
    (expected, _), (got, found.weights) = logits(path, "cpu"), logits(path, device)
    apart = np.sqrt(np.mean(np.square(got - expected)) / np.mean(np.square(expected)))
    found.logits_difference = float(apart)
    if not apart <= LOGITS:  # NaN is not, either
        found.problems.append(f"logits differ by {apart:.3f} of their size")
    if choose(device) and all(name.startswith("CPU") for name in found.weights):
        found.problems.append(f"all weights lie in main memory: {found.weights}")


def check(path: Path, device: str, reference: Path | None = None) -> Found:
    """Compare a file on the device with it on the CPU."""
    found = Found(path.name)
    _, expected = answers(path, "cpu", parallel=1)
    ways = {"all layers, one at a time": (None, 1), "all layers, four at once": (None, 4)}
    if choose(device):
        ways["two layers, four at once"] = (TWO, 4)
    for where, (layers, parallel) in ways.items():
        runs_on, got = answers(path, device, layers, parallel)
        found.runs_on.append(f"{where}: {runs_on}")
        compare(found, where, expected, got)
    if found.largest_logprob_difference > LOGPROB:
        found.problems.append(f"log-probabilities differ by {found.largest_logprob_difference:.3f}")
    compare_logits(found, path, device)
    if reference is not None:
        material = Material(chunks=2)
        for name in ("cpu", device):
            judged = verify(path, reference, material=material, engine=Engine("llama.cpp", name))
            found.kld[name] = judged.figures.kld.value
            found.problems += [f"{name}: {gate.title}" for gate in judged.failures]
        if abs(found.kld["cpu"] - found.kld[device]) > KLD:
            found.problems.append(f"KL divergence {found.kld}")
    if not found.equal_texts:
        found.problems.append("no text is as on the CPU")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device")
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(build_info()["llama.cpp"], *devices(), sep="\n")
    print("chosen by auto:", *choose("auto"))
    with tempfile.TemporaryDirectory() as folder:
        models, reference = given.models, given.reference
        if not models:
            files = convert(EXAMPLE, Path(folder), ["F16", "Q8_0", "Q4_K_M"]).files
            models, reference = [file.path for file in files], EXAMPLE
        found = [check(model, given.device, reference) for model in models]
        if given.shapes:
            for checkpoint in make_shapes(Path(folder)):
                files = convert(checkpoint, Path(folder) / "of-shapes", ["Q8_0", "Q4_K_M"]).files
                found += [check(file.path, given.device) for file in files]
    for one in found:
        print(one.file, *one.runs_on, sep="\n  ")
        print(f"  {one.equal_texts} of {one.texts} texts as on the CPU, KL divergence {one.kld}")
        print(
            f"  logits differ by {one.logits_difference:.4f} of their size; weights {one.weights}"
        )
        print(*(f"  WRONG: {problem}" for problem in one.problems), sep="\n")
    if given.json:
        report = {"build": build_info(), "files": [asdict(one) for one in found]}
        given.json.write_text(json.dumps(report, indent=2), encoding="utf-8")
    return int(any(one.problems for one in found))


if __name__ == "__main__":
    sys.exit(main())
