"""Make image_embeddings.npz: what transformers computes of an image with a small LFM2-VL.

The embeddings, and the logits behind the tokens BEFORE, the image, and the tokens AFTER.

    python -m tests.golden.make_image_embeddings

Needs torch and transformers 5. The checkpoint is IMAGE_CASE of tests/multimodal.py, whose names
and shapes transformers has to accept without one missing or left over; the image is IMAGE, cut
into patches and normalised here as image_processing_lfm2_vl.py does, which needs torchvision.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import Lfm2VlForConditionalGeneration

from tests.making.multimodal import AFTER, BEFORE, IMAGE_CASE, PROCESSOR, image, make_multimodal

TARGET = Path(__file__).with_name("image_embeddings.npz")
PATCH = 16


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        model, report = Lfm2VlForConditionalGeneration.from_pretrained(
            make_multimodal(IMAGE_CASE, Path(folder)), output_loading_info=True, dtype=torch.float32
        )
    # lm_head is tied to the embedding
    assert not any(report[k] for k in ("unexpected_keys", "mismatched_keys", "missing_keys")), (
        report
    )
    pixels = (image() / 255 - PROCESSOR["image_mean"]) / np.array(PROCESSOR["image_std"])
    rows, columns = (n // PATCH for n in pixels.shape[:2])
    patches = pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 1, 3, 4)
    with torch.inference_mode():
        features = model.model.get_image_features(
            pixel_values=torch.tensor(patches.reshape(1, rows * columns, -1), dtype=torch.float32),
            spatial_shapes=torch.tensor([[rows, columns]]),
            pixel_attention_mask=torch.ones(1, rows * columns, dtype=torch.int32),
        )
        seen = features.pooler_output[0]
        words = model.get_input_embeddings()
        before, after = (words(torch.tensor(tokens)) for tokens in (BEFORE, AFTER))
        output = model(inputs_embeds=torch.cat([before, seen, after])[None])
    np.savez(TARGET, embeddings=seen.numpy(), logits=output.logits[0, -1].numpy())


if __name__ == "__main__":
    main()
