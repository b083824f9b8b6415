"""Golden values of examples/tiny-lfm2, from transformers (needs torch; run by hand).

    python tests/golden/make_tiny_transformers.py [CHECKPOINT]

The bfloat16 weights are loaded in float32 and everything is computed in float32, with eager
attention on one thread. Writes, beside itself:

tiny_transformers.json
    ``greedy``: three prompts with their token ids (BOS included), the 24 tokens that greedy
    decoding appends to each, the text, and the smallest distance between the best and the second
    logit on the way. A runtime that rounds its activations (llama.cpp's BF16 does) agrees as long
    as it stays below that distance, so a prompt with a smaller one than MARGIN is refused.
    ``encodings``: token ids of strings that are hard for a tokenizer, without BOS.
    ``logits``: the token ids of the passage that the logits below belong to.
tiny_transformers.npz
    ``positions`` (int64, shape (n,)) and ``logits`` (float32, shape (n, vocabulary)): the next
    token's logits at these positions of the passage.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, Lfm2ForCausalLM

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "tiny-lfm2"
NEW_TOKENS = 24
MARGIN = 0.15
PROMPTS = ("The following", "An exception", "Returns True")
PASSAGE = (
    "The for statement is used to iterate over the elements of a sequence, such as a string, "
    "a tuple or a list, or over any other iterable object. The expression is evaluated once; "
    "it should yield an iterable. An iterator is created for the result of that expression, "
    "and the first suite is then executed once for each item."
)
LENGTH = 64
# The first four see the convolutions' zero state, the others are spread over the passage.
POSITIONS = (0, 1, 2, 3, *range(7, LENGTH, 8))
STRINGS = (
    "",
    " ",
    "    indented\n\tby a tab",
    "trailing spaces   ",
    "one\ntwo\r\nthree\n\n\n\nfour\r",
    "\n \n  \n",
    "1234567890 12 3,141.59 0x1F 1e-9",
    "٣ ½ ² ①②③",
    "it's WE'LL I'd you'VE don't 'tis s' 'S",
    "naïve café Straße Ångström",
    "nai\u0308ve cafe\u0301",
    "Привет, мир! 你好,世界。 こんにちは",
    "🙂👩‍👩‍👧‍👦🇫🇷 ✓ ™",
    "\u00a0no-break\u2003em\u200bzero\u3000wide",
    "a\x00b\x07c\x7f",
    "python Python pythonic cpython python3",
    "def f(x, *, y=None):\n    return [x**2 for _ in range(10)]  # squares",
    "<|im_start|>user\nHi<|im_end|>\n",
    "text<|endoftext|>text<|startoftext|> <|pad|>",
    "<|not_a_token|> <|im_start |> <| im_end|>",
    '<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>',
    "!!!???...;;;###@@@ --==>> ((((",
    "x" * 40 + " " * 20 + "y",
)


def greedy(model: Lfm2ForCausalLM, tokenizer: Any, prompt: str) -> dict[str, Any]:
    """Greedy continuation without a cache: each token from a full forward pass."""
    prompt_ids = tokenizer(prompt)["input_ids"]
    ids, margin = list(prompt_ids), float("inf")
    for _ in range(NEW_TOKENS):
        top = model(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
    if margin < MARGIN:
        raise SystemExit(f"{prompt!r}: the smallest margin is {margin:.4f}; choose another prompt")
    new = ids[len(prompt_ids) :]
    return {
        "prompt": prompt,
        "prompt_ids": prompt_ids,
        "ids": new,
        "text": tokenizer.decode(new),
        "margin": round(margin, 4),
    }


@torch.no_grad()
def main(checkpoint: Path) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = Lfm2ForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    passage = tokenizer(PASSAGE)["input_ids"][:LENGTH]
    if len(passage) < LENGTH:
        raise SystemExit(f"the passage has only {len(passage)} tokens")
    logits = model(torch.tensor([passage]), use_cache=False).logits[0, POSITIONS]
    golden = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "greedy": [greedy(model, tokenizer, prompt) for prompt in PROMPTS],
        "encodings": [
            {"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]}
            for text in STRINGS
        ],
        "logits": {"ids": passage},
    }
    (HERE / "tiny_transformers.json").write_text(json.dumps(golden, indent=1) + "\n")
    np.savez_compressed(
        HERE / "tiny_transformers.npz",
        positions=np.array(POSITIONS),
        logits=logits.numpy(),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE)
