"""Make audio_embeddings.npz: what liquid-audio computes with a small LFM2-Audio.

Of a sound the embeddings, and the logits behind the tokens BEFORE, the sound, and the tokens
AFTER. Of codes the spectra of the detokenizer, every sixteenth bin.

    python -m tests.golden.make_audio_embeddings

Needs torch, transformers 5, librosa, and liquid-audio 1.3.0 (pip install --no-deps), of which
preprocessor, encoder and adapter are taken as they are; what is done with them is what
LFM2AudioModel._prefill, its text logits and ChatState.add_audio do. The detokenizer is all of
LFM2AudioDetokenizer. The checkpoints are AUDIO_CASE and DETOKENIZER_CASE of tests/sounds.py, whose
names and shapes the modules have to accept without one missing or left over.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import Lfm2Config, Lfm2Model

from tests.making.multimodal import AFTER, BEFORE, Case, make_multimodal
from tests.making.sounds import AUDIO_CASE, DETOKENIZER_CASE, ENCODER, PREPROCESSOR, codes, sound

TARGET = Path(__file__).with_name("audio_embeddings.npz")


def _modules() -> tuple[Any, Any, Any, Any]:
    """Liquid-audio's preprocessor, encoder, adapter and detokenizer, without its package."""
    spec = importlib.util.find_spec("liquid_audio")
    folder = next(iter((spec and spec.submodule_search_locations) or ["liquid_audio"]))
    sys.path[:0] = [folder, f"{folder}/model"]
    from conformer.encoder import ConformerEncoder
    from conformer.processor import AudioToMelSpectrogramPreprocessor
    from detokenizer import LFM2AudioDetokenizer
    from mlp import MLP

    return AudioToMelSpectrogramPreprocessor, ConformerEncoder, MLP, LFM2AudioDetokenizer


def _tensors(case: Case) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(make_multimodal(case, Path(folder)).glob("*.safetensors"))
        return {name: value for file in files for name, value in load_file(file).items()}


def _spectra(detokenizer: Any) -> np.ndarray:
    """What its last linear layer makes of the codes, (frames, bins)."""
    config = dict(DETOKENIZER_CASE.config)  # names of layers as LFM2AudioProcessor changes them
    config["layer_types"] = [t.replace("sliding", "full") for t in config["layer_types"]]
    model = _load(detokenizer(Lfm2Config(**config)), _tensors(DETOKENIZER_CASE), "")
    found: list[torch.Tensor] = []
    model.lin.register_forward_hook(lambda *call: found.append(call[-1]))
    with torch.inference_mode():
        model(torch.tensor(codes())[None])
    return found[0][0].numpy()


def _load(module: torch.nn.Module, tensors: dict[str, torch.Tensor], prefix: str) -> Any:
    """Put every tensor of a prefix into a module: none missing, none left over."""
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module.load_state_dict(own, strict=True)
    return module.eval()


def main() -> None:
    """Write the file."""
    preprocessor, encoder, adapter, detokenizer = _modules()
    tensors = _tensors(AUDIO_CASE)
    text = Lfm2Config(**AUDIO_CASE.config["lfm"])
    listen = preprocessor(**PREPROCESSOR).eval()
    encode = _load(encoder(**ENCODER), tensors, "conformer.")
    adapt = _load(
        adapter(ENCODER["d_model"], text.hidden_size, [text.hidden_size]), tensors, "audio_adapter."
    )
    lfm = _load(Lfm2Model(text), tensors, "lfm.")
    samples = torch.tensor(sound())[None]
    with torch.inference_mode():
        mel, _ = listen(samples, torch.tensor([samples.shape[1]]))
        frames, _ = encode(mel, torch.tensor([mel.shape[-1]]))
        heard = adapt(frames.mT)[0]
        before, after = (lfm.embed_tokens(torch.tensor(tokens)) for tokens in (BEFORE, AFTER))
        states = lfm(inputs_embeds=torch.cat([before, heard, after])[None]).last_hidden_state
        logits = torch.nn.functional.linear(states[0, -1], lfm.embed_tokens.weight)
    spectra = _spectra(detokenizer)[:, ::16]
    np.savez(TARGET, embeddings=heard.numpy(), logits=logits.numpy(), spectra=spectra)


if __name__ == "__main__":
    main()
