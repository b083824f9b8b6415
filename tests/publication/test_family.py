"""What is published beside a text model: projectors, adapters, retrieval; and from the Hub."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lfm2gguf import publish
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.publication import Settings
from lfm2gguf.verification import Material
from tests.checkpoint import fake_hub
from tests.cli.command import COMMAND
from tests.conftest import EXAMPLE
from tests.making import adapters
from tests.making.multimodal import CASES, make_multimodal
from tests.making.retrieval_checkpoints import CASES as RETRIEVAL
from tests.making.retrieval_checkpoints import make_retrieval
from tests.making.retrieval_example import KINDS, make_example
from tests.publication.hub_server import TOKEN, serve

TO = "me/small-GGUF"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 60)
    return Settings(material=Material((text,), chunks=4, ctx=64, cache=False), imatrix=False)


def front_matter(folder: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return found


@pytest.mark.slow
def test_a_vision_model_has_its_projector(tmp_path: Path, settings: Settings) -> None:
    source = make_multimodal(CASES["LFM2-VL-450M"], tmp_path / "LFM2-VL")
    made = publish(source, TO, ["F32"], folder=tmp_path / "f", settings=settings, send=False)
    assert made.passed, made.failures
    [projector] = [name for name in made.files if name.startswith("mmproj-")]
    assert f"[{projector}]({projector})" in (made.folder / "README.md").read_text()
    assert front_matter(made.folder)["pipeline_tag"] == "image-text-to-text"


@pytest.mark.slow
def test_a_retrieval_model_is_judged_by_its_vectors(tmp_path: Path, settings: Settings) -> None:
    source = make_retrieval(RETRIEVAL["LFM2.5-Embedding-350M"], tmp_path / "LFM2-Embedding")
    chosen = replace(settings, imatrix=True)  # there is no protocol for one: none is made
    made = publish(source, TO, ["F32"], folder=tmp_path / "f", settings=chosen, send=False)
    assert made.passed, made.failures
    card = (made.folder / "README.md").read_text()
    assert "| cosine | rank correlation | same of the ten best |" in card
    assert "--embeddings" in card
    assert "ollama" not in card
    assert front_matter(made.folder)["pipeline_tag"] == "sentence-similarity"
    assert not {"imatrix.gguf", "template", "params"} & set(made.files)


@pytest.mark.slow
def test_a_retrieval_model_is_calibrated(tmp_path: Path, settings: Settings) -> None:
    """As text models are: the vectors are judged nearer, and the card says how it was made."""
    source = make_example(KINDS["colbert"], tmp_path / "LFM2-ColBERT")
    examples = Path(__file__).parents[2] / "examples"
    # one sentence again and again would give documents whose ranks say nothing
    settings = replace(
        settings, material=Material((examples / "ci/README.md",), chunks=32, ctx=64, cache=False)
    )
    results = {}
    for name in ("plain", "calibrated"):
        careful = name == "calibrated"
        texts = [examples / "fidelity/README.md"] if careful else []
        chosen = replace(settings, calibrate=careful, calibration_texts=texts)
        made = publish(
            source, TO, ["Q4_0", "F32"], folder=tmp_path / name, settings=chosen, send=False
        )
        assert made.passed, made.failures
        results[name] = made.results[0].similarity.cosine.value
        card = (made.folder / "README.md").read_text()
        assert (" --calibrate --to" in card) == (name == "calibrated")
        assert ("rounded for what its layer sees" in card) == (name == "calibrated")
        assert "imatrix.gguf" not in made.files
    assert results["calibrated"] > results["plain"]
    [written] = [name for name in made.files if name.endswith("Q4_0.gguf")]
    assert GGUFFile.open(made.folder / written).get("lfm2gguf.calibration.tokens")


@pytest.mark.slow
def test_an_adapter_beside_the_model(tmp_path: Path, settings: Settings) -> None:
    case = adapters.CASES["plain"]
    source = adapters.make_base(case, tmp_path / "base")
    adapter = adapters.make_adapter(case, tmp_path / "my-adapter")
    chosen = replace(settings, adapter=adapter)
    made = publish(source, TO, ["F32"], folder=tmp_path / "f", settings=chosen, send=False)
    assert made.passed, made.failures
    assert "my-adapter-F32-LoRA.gguf" in made.files
    assert "a LoRA adapter" in (made.folder / "README.md").read_text()


def test_a_model_in_several_files(tmp_path: Path, settings: Settings, small: Path) -> None:
    chosen = replace(settings, split_max_size=100_000)
    made = publish(small, TO, ["F32"], folder=tmp_path / "f", settings=chosen, send=False)
    assert made.passed, made.failures
    parts = [name for name in made.files if "-of-" in name]
    assert len(parts) > 1
    assert all((made.folder / name).is_file() for name in parts)


@pytest.mark.slow
@pytest.mark.hub
def test_from_the_hub_to_the_hub(tmp_path: Path) -> None:
    """The command, in a process of its own: base model, commit and licence are the Hub's."""
    source = tmp_path / "source"
    source.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).symlink_to(file)
    (source / "README.md").unlink()
    (source / "README.md").write_text("---\nlicense: other\nlicense_link: LICENSE\n---\n")
    (source / "LICENSE").write_text("You may.\n")
    with serve(source) as hub:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        done = subprocess.run(
            [*COMMAND, "publish", fake_hub.REPOSITORY, "--to", TO, "-t", "Q8_0", "--no-imatrix",
             "--chunks", "1", "--json"],
            capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["url"].startswith(hub.url)
        [commit] = hub.commits
    folder = tmp_path / "small-GGUF"
    about = front_matter(folder)
    assert about["base_model"] == fake_hub.REPOSITORY
    assert about["license_link"] == "LICENSE"
    assert commit["LICENSE"] == b"You may.\n"
    assert f"--revision {fake_hub.COMMIT}" in commit["README.md"].decode()
