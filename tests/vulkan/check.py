"""Run the example model on the CPU and on a Vulkan device; fail where they disagree."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lfm2gguf import Runner, convert
from lfm2gguf.llamacpp import build_info, choose, devices
from lfm2gguf.runner import Reply

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-lfm2"
QUESTIONS = [f"What does str.{name} do?" for name in ("upper", "split", "join")]
PLACES = [("all layers", None), ("two layers", 2)]
NEAR = 0.1  # nats between the two best tokens, within which devices may choose differently


def answers(path: Path, device: str, layers: int | None = None) -> tuple[str, list[Reply]]:
    with Runner(path, device=device, gpu_layers=layers, context=512, threads=1) as lfm:
        replies = lfm.batch(
            QUESTIONS, temperature=0.0, repeat_penalty=1.0, max_tokens=24, logprobs=2
        )
        runs_on = lfm.device
    wanted = "CPU" if device == "cpu" else "Vulkan"
    assert runs_on.backend == wanted, f"asked for {device}, runs on {runs_on}"
    expected = 0 if device == "cpu" else runs_on.layers if layers is None else layers
    assert runs_on.layers_offloaded == expected, f"{expected} layers expected, {runs_on}"
    return str(runs_on), replies


def parted(one: Reply, other: Reply) -> Iterator[str]:
    """Steps where greedy choices differ although the CPU's first is well ahead of its second."""
    for a, b in zip(one.logprobs or (), other.logprobs or (), strict=False):
        if a.token != b.token:
            if a.top[0][1] - a.top[1][1] > NEAR:
                yield f"{a.text!r} on the CPU, {b.text!r} on Vulkan"
            return


def main() -> int:
    print(build_info()["llama.cpp"], *devices(), sep="\n")
    print("chosen by auto:", *choose("auto"))
    wrong = equal = 0
    with tempfile.TemporaryDirectory() as folder:
        for file in convert(EXAMPLE, Path(folder), ["F16", "Q8_0", "Q4_K_M"]).files:
            _, expected = answers(file.path, "cpu")
            for place, layers in PLACES:
                where, got = answers(file.path, "vulkan", layers)
                same = [a.text == b.text for a, b in zip(expected, got, strict=True)]
                problems = [p for a, b in zip(expected, got, strict=True) for p in parted(a, b)]
                print(f"{file.type}, {place}: {where}")
                print(f"  {sum(same)} of {len(same)} texts as on the CPU", *problems, sep="\n  ")
                equal += sum(same)
                wrong += len(problems)
    return int(bool(wrong) or not equal)


if __name__ == "__main__":
    sys.exit(main())
