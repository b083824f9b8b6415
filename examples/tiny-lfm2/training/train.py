"""Train the example model, or write the text that was held out from it.

    python train.py --out FOLDER
    python train.py --held-out FILE

The first (torch and transformers; about 25 minutes of two cores) writes a checkpoint without its
model card, and `training.json`: the settings, the loss curve, and the held-out perplexity of the
bfloat16 weights as saved. Everything is seeded; the text is that of the running Python, whose
version is recorded.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import platform
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpe
import corpus
import torch
import transformers
from muon import Muon
from torch.nn import functional
from transformers import GenerationConfig, Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast
from transformers.models.lfm2 import modeling_lfm2

HERE = Path(__file__).parent
SEED = 0
TOKENS = 2040  # entries of the tokenizer; the embedding has eight rows more
CONFIG = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 384,  # block_auto_adjust_ff_dim makes 256 of it
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "full_attn_idxs": [1, 3, 5, 7],
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 7,
    "pad_token_id": 0,
}
# LFM2's recommended sampling.
SAMPLING = {"do_sample": True, "temperature": 0.3, "min_p": 0.15, "repetition_penalty": 1.05}
STEPS, BATCH_TOKENS, WARMUP, DECAY = 1200, 8192, 40, 0.5
LENGTHS = (256, 256, 256, 512, 512, 1024)  # sequence length in each epoch
SMALL_TALK, TOOL_USE = 150, 600  # conversations in each epoch
MUON = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
ADAMW = {"lr": 0.004, "betas": (0.9, 0.95), "weight_decay": 0.01}


def shifted_convolution(
    hidden_states: torch.Tensor, weight: torch.Tensor, *_: object, **__: object
) -> torch.Tensor:
    """The depthwise causal convolution as three products: training is twice as fast."""
    length = hidden_states.shape[-1]
    padded = functional.pad(hidden_states, (weight.shape[-1] - 1, 0))
    taps = (padded[..., i : i + length] * weight[:, i, None] for i in range(weight.shape[-1]))
    return torch.stack(list(taps)).sum(0)


def epoch(
    documents: list[corpus.Document], tokenizer: PreTrainedTokenizerFast, number: int
) -> torch.Tensor:
    """One epoch's tokens: every document once, and freshly drawn conversations, shuffled."""
    rng = random.Random(SEED + number)
    chats = [(chat, None) for document in documents for chat in corpus.answers(document, rng)]
    chats += [(corpus.small_talk(rng), None) for _ in range(SMALL_TALK)]
    chats += [corpus.tool_use(rng) for _ in range(TOOL_USE)]
    texts = [f"{bpe.BOS}{corpus.text(d)}{bpe.EOT}" for d in documents]
    texts += [tokenizer.apply_chat_template(c, tools=t, tokenize=False) for c, t in chats]
    rng.shuffle(texts)
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in ids])


def batches(
    documents: list[corpus.Document], tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (inputs, targets), both (batch, length), windows in random order.

    A window's first token is replaced by BOS, as scoring does.
    """
    generator = torch.Generator().manual_seed(SEED)
    for number in itertools.count():
        tokens = epoch(documents, tokenizer, number)
        length = LENGTHS[min(number, len(LENGTHS) - 1)]
        windows = tokens[1:].unfold(0, length, length)  # (windows, length): the targets
        order = torch.randperm(len(windows), generator=generator)
        for chosen in order.split(BATCH_TOKENS // length)[:-1]:
            targets = windows[chosen]
            inputs = targets.roll(1, dims=1)
            inputs[:, 0] = CONFIG["bos_token_id"]
            yield inputs, targets


@torch.no_grad()
def negative_log_likelihood(
    model: Lfm2ForCausalLM, tokens: torch.Tensor, context: int
) -> torch.Tensor:
    """llama-perplexity's protocol: BOS first in each chunk, the second half of each is scored."""
    losses = []
    for chunk in tokens[: len(tokens) // context * context].view(-1, context):
        inputs = torch.cat((torch.tensor([CONFIG["bos_token_id"]]), chunk[1:]))
        logits = model(inputs[None], use_cache=False).logits[0].float()
        first = context // 2
        losses.append(
            functional.cross_entropy(logits[first:-1], chunk[first + 1 :], reduction="none")
        )
    return torch.cat(losses).double()


def schedule(step: int) -> float:
    """Warm-up, a plateau, and a linear decay to zero over the last part."""
    return min((step + 1) / WARMUP, 1.0, (STEPS - step) / (DECAY * STEPS))


def optimizers(model: Lfm2ForCausalLM) -> list[torch.optim.Optimizer]:
    layers = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = set(map(id, layers))
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [Muon(layers, **MUON), torch.optim.AdamW(others, **ADAMW)]


def build() -> Lfm2ForCausalLM:
    torch.manual_seed(SEED)
    model = Lfm2ForCausalLM(Lfm2Config(**CONFIG))
    for layer in model.model.layers:
        if hasattr(layer, "conv"):
            torch.nn.init.normal_(layer.conv.conv.weight, std=0.5)
    return model


def save(model: Lfm2ForCausalLM, folder: Path) -> Lfm2ForCausalLM:
    """Write the weights in bfloat16; returns the model as it reads back, in float32."""
    state = {name: value.bfloat16() for name, value in model.state_dict().items()}
    saved = Lfm2ForCausalLM(model.config).bfloat16()
    saved.load_state_dict(state)
    saved.generation_config = GenerationConfig(
        **SAMPLING, **{key: CONFIG[key] for key in CONFIG if key.endswith("_token_id")}
    )
    saved.save_pretrained(folder)
    return Lfm2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def train(
    documents: list[corpus.Document],
    tokenizer: PreTrainedTokenizerFast,
    held_out: torch.Tensor,
    folder: Path,
) -> tuple[Lfm2ForCausalLM, list[float]]:
    """Train, saving into ``folder`` every hundred steps; the model as saved, the loss curve."""
    model = build()
    print(f"{model.num_parameters():,} parameters, {len(documents)} documents", flush=True)
    both, curve, start = optimizers(model), [], time.monotonic()
    for step, (inputs, targets) in zip(range(STEPS), batches(documents, tokenizer), strict=False):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        for optimizer in both:
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * schedule(step)
            optimizer.step()
            optimizer.zero_grad()
        curve.append(loss.item())
        if (step + 1) % 10 == 0:
            print(step + 1, f"{loss:.3f}", f"{time.monotonic() - start:.0f}s", flush=True)
        if (step + 1) % 100 == 0:
            losses = negative_log_likelihood(save(model, folder), held_out[:8192], 256)
            print(f"held-out {losses.mean().exp():.2f}", flush=True)
    return save(model, folder), curve


def report(
    documents: list[corpus.Document], held_out: str, losses: torch.Tensor, curve: list[float]
) -> dict[str, Any]:
    perplexity = losses.mean().exp().item()
    error = perplexity * losses.std().item() / math.sqrt(len(losses))
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seed": SEED,
        "steps": STEPS,
        "tokens": STEPS * BATCH_TOKENS,
        "training_text": {
            "documents": len(documents),
            "characters": sum(len(corpus.text(document)) for document in documents),
        },
        "held_out_text": {
            "sha256": hashlib.sha256(held_out.encode()).hexdigest(),
            "characters": len(held_out),
            "protocol": "chunks of 512 tokens, BOS first, the second half scored",
            "scored_tokens": len(losses),
            "perplexity": round(perplexity, 3),
            "standard_error": round(error, 3),
        },
        "training_loss_mean_of_20_steps": [
            round(sum(part) / len(part), 4)
            for part in (curve[i : i + 20] for i in range(0, len(curve), 20))
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, help="train, and write the checkpoint here")
    target.add_argument("--held-out", type=Path, help="only write the held-out text here")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    modeling_lfm2.causal_conv1d_fn = shifted_convolution

    documents, held_out = corpus.split(corpus.documents())
    if args.held_out:
        args.held_out.write_text(held_out, encoding="utf-8")
        return
    template = (HERE.parent / "chat_template.jinja").read_text()
    tokenizer = bpe.save(bpe.train(map(corpus.text, documents), TOKENS), template, args.out)
    tokens = torch.tensor(tokenizer(held_out)["input_ids"])  # BOS first, as llama-perplexity has it
    model, curve = train(documents, tokenizer, tokens, args.out)
    losses = negative_log_likelihood(model, tokens, 512)
    written = json.dumps(report(documents, held_out, losses, curve), indent=1)
    (args.out / "training.json").write_text(written + "\n")
    print(written)


if __name__ == "__main__":
    main()
