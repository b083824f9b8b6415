"""A repository of GGUF files: what is made, what its card says, and what reaches the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

import lfm2gguf.verification.limits
from lfm2gguf import convert, publish
from lfm2gguf.errors import HubError, OptionError, OutputError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.publication import Publication, Settings, plan_publication
from lfm2gguf.verification import Limits, Material
from tests.cli.command import run
from tests.conftest import EXAMPLE
from tests.publication.hub_server import COMMIT, TOKEN, UploadHub, serve

TO = "me/tiny-lfm2-GGUF"
TYPES = ("Q8_0", "BF16")

pytestmark = [
    pytest.mark.hub,
    # huggingface_hub 2.4 hands its HTTP client the file in a way that is going out of use
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Texts of few chunks: what is measured on them is not the matter here."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text((EXAMPLE / "README.md").read_text("utf-8"), "utf-8")
    material = Material(chunks=2, cache=False)
    return Settings(material=material, calibration_texts=(text,), base_model="me/tiny-lfm2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Publication:
    """A folder that was made, and not uploaded; not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "tiny"
    return publish(EXAMPLE, TO, TYPES, folder=folder, settings=settings, send=False)


@pytest.fixture
def hub(made: Publication, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """A Hub, and the login to it."""
    with serve(EXAMPLE) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def again(made: Publication, settings: Settings, **more: Any) -> Publication:
    return publish(EXAMPLE, TO, TYPES, folder=made.folder, settings=settings, **more)


def front_matter(card: str) -> dict[str, Any]:
    _, data, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(data)
    return found


def test_what_is_in_the_folder(made: Publication) -> None:
    assert made.passed
    ggufs = [name for name in made.files if name.endswith(".gguf")]
    assert ggufs == ["imatrix.gguf", *(f"Tiny-Lfm2-3.9M-{type}.gguf" for type in TYPES)]
    assert set(made.files) - set(ggufs) == {
        "README.md", "params", "template", "verification.json", "verification.md",
        "verification.svg",
    }  # fmt: skip
    there = {path.name for path in made.folder.iterdir()}
    assert there == {*made.files, ".lfm2gguf"}
    keys = GGUFFile.open(made.folder / ggufs[1])
    assert keys.get("quantize.imatrix.chunks_count")  # the matrix was used
    assert "<|im_end|>" in json.loads((made.folder / "params").read_text())["stop"]


def test_what_the_hub_reads_in_the_card(made: Publication) -> None:
    data = front_matter((made.folder / "README.md").read_text("utf-8"))
    assert data["base_model"] == "me/tiny-lfm2"
    assert data["base_model_relation"] == "quantized"
    assert (data["license"], data["language"]) == ("mit", ["en"])
    assert (data["pipeline_tag"], data["library_name"]) == ("text-generation", "gguf")
    assert "gguf" in data["tags"]
    huggingface_hub.ModelCard.load(made.folder / "README.md").validate  # noqa: B018


def test_what_a_person_reads_in_the_card(made: Publication) -> None:
    card = (made.folder / "README.md").read_text("utf-8")
    report = json.loads((made.folder / "verification.json").read_text("utf-8"))
    for file in report["files"]:
        row = next(line for line in card.splitlines() if line.startswith(f"| [{file['file']}]"))
        figures = file["stages"]["shipped"]
        assert f"| {file['bytes'] / 1e6:.1f} MB |" in row
        assert f"| {figures['kld']['value']:.4f} |" in row
        assert f"| {100 * figures['same_top']['value']:.1f} % |" in row
        assert f"| {figures['ppl_candidate']['value']:.3f} |" in row
    links = re.findall(r"\]\((?!https://)([^)]+)\)", card)
    assert len(links) >= 5
    assert not [link for link in links if not (made.folder / link).is_file()]
    for program in ("llama-server -hf", "ollama run hf.co/", "lms get", "Llama.from_pretrained",
                    "lfm2gguf run"):  # fmt: skip
        assert any(program in line and TO in line for line in card.splitlines()), program


def test_one_commit_has_the_same_bytes(
    hub: UploadHub, made: Publication, settings: Settings
) -> None:
    done = again(made, settings, private=True)
    assert done.url == f"{hub.url}/{TO}/commit/{COMMIT}"
    assert hub.repositories[TO]["visibility"] == "private"
    [commit] = hub.commits
    assert commit == {name: (made.folder / name).read_bytes() for name in made.files}
    [card] = hub.cards
    assert card == (made.folder / "README.md").read_text("utf-8")


def test_a_public_repository_does_not_get_what_is_to_be_private(
    hub: UploadHub, made: Publication, settings: Settings
) -> None:
    hub.repositories[TO] = {"name": "tiny-lfm2-GGUF", "visibility": "public"}
    with pytest.raises(HubError, match="is public already"):
        again(made, settings, private=True)
    assert not hub.commits
    hub.repositories[TO]["visibility"] = "private"
    assert again(made, settings, private=True).url
    assert again(made, settings).url


def test_an_upload_that_breaks_goes_on(
    hub: UploadHub, made: Publication, settings: Settings
) -> None:
    hub.broken_after = 2
    with pytest.raises(
        HubError, match=r"not uploaded .*refused: Broken.* goes on where it stopped"
    ):
        again(made, settings)
    assert (len(hub.uploaded), hub.commits) == (2, [])
    hub.broken_after = None
    again(made, settings)
    assert len(hub.uploaded) == len(set(hub.uploaded)) == 3  # nothing twice
    assert len(hub.commits) == 1


def test_nobody_is_logged_in(
    hub: UploadHub, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(HubError, match="hf auth login"):
        publish(EXAMPLE, TO, TYPES, folder=tmp_path / "new", settings=settings)
    assert not (tmp_path / "new").exists()  # before any work


def test_a_token_that_is_none(
    hub: UploadHub, made: Publication, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_\N{LATIN SMALL LETTER E WITH ACUTE}")
    with pytest.raises(HubError, match=r"the token \(HF_TOKEN\) holds"):
        again(made, settings)


def test_a_token_that_may_not_write(hub: UploadHub, made: Publication, settings: Settings) -> None:
    hub.may_write = False
    with pytest.raises(HubError, match="token that may write"):
        again(made, settings)
    assert not hub.commits


@pytest.mark.slow
def test_what_failed_its_gate_is_not_uploaded(
    hub: UploadHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    limits = lfm2gguf.verification.limits.TYPE_LIMITS
    row = replace(limits["Q8_0"], text=replace(limits["Q8_0"].text, max_kld=1e-9))
    monkeypatch.setitem(limits, "Q8_0", row)
    result = run(
        "publish", EXAMPLE, "--to", TO, "-t", "Q8_0", "-t", "BF16", "-o", tmp_path / "f",
        "--chunks", 1, "--no-imatrix",
    )  # fmt: skip
    assert result.code == 1, result
    assert "nothing was uploaded" in result.out
    assert "Tiny-Lfm2-3.9M-Q8_0.gguf: mean KL divergence" in result.err
    assert not hub.repositories
    assert not hub.commits
    assert not (tmp_path / "f" / "README.md").exists()  # which would say that they passed


def test_a_folder_that_is_whole_is_not_made_again(made: Publication, settings: Settings) -> None:
    card = made.folder / "README.md"
    before = {path: path.stat().st_mtime_ns for path in made.folder.iterdir() if path.is_file()}
    text = card.read_text("utf-8")
    card.write_text(text + "\nWith my own words.\n", "utf-8")
    try:
        found = again(made, settings, send=False)
        assert found.files == made.files
        assert card.read_text("utf-8").endswith("my own words.\n")
    finally:
        card.write_text(text, "utf-8")
    assert all(p.stat().st_mtime_ns == t for p, t in before.items() if p != card)


def test_a_folder_of_something_else_is_left_alone(
    made: Publication, settings: Settings, tmp_path: Path
) -> None:
    other = replace(settings, imatrix=False, calibration_texts=())
    with pytest.raises(OutputError, match="made otherwise"):
        again(made, other, send=False)
    (tmp_path / "precious.txt").write_text("precious")
    with pytest.raises(OutputError, match="holds something else"):
        publish(EXAMPLE, TO, TYPES, folder=tmp_path, settings=settings, send=False)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


NO_REPOSITORIES = [
    "tiny", "me/", "/tiny", "a/b/c", "me/a b", "me/..", "-/x" * 40, "me/a.", "me/a-", "-me/a",
    "me/a.git", "https://huggingface.co/me/a",
]  # fmt: skip


@pytest.mark.parametrize("name", NO_REPOSITORIES)
def test_what_is_no_repository(name: str) -> None:
    with pytest.raises(OptionError, match=r"--to\).*repository's name"):
        plan_publication(EXAMPLE, name)
    with pytest.raises(OptionError, match=r"--base-model\).*repository's name"):
        plan_publication(EXAMPLE, TO, settings=Settings(base_model=name))
    with pytest.raises(HFValidationError):
        validate_repo_id(name if "/" in name else "/")


def test_a_type_that_nothing_vouches_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every type has limits as yet: here one has none."""

    def none(self: Limits, type: str) -> None:
        raise OptionError(f"no limits for {type}")

    monkeypatch.setattr(Limits, "of_text", none)
    with pytest.raises(OptionError, match="nothing would vouch"):
        plan_publication(EXAMPLE, TO, ["Q4_0"])


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("publish", EXAMPLE, "--to", TO, "--dry-run", "--json")
    assert result.code == 0
    said = json.loads(result.out)
    assert [file["type"] for file in said["files"]] == [
        "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16",
    ]  # fmt: skip
    assert said["front_matter"]["license"] == "mit"
    assert any("--base-model" in note for note in said["notes"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_calibrated_file_is_made_judged_and_uploaded(
    hub: UploadHub, settings: Settings, tmp_path: Path
) -> None:
    """Rounded with care in place of an importance matrix: other bytes, and the card says so."""
    text = tmp_path / "text.txt"
    text.write_text(Path(json.__file__).with_name("decoder.py").read_text("utf-8"), "utf-8")
    careful = replace(settings, calibrate=True, calibration_texts=(text,))
    done = publish(EXAMPLE, TO, ["Q4_K_M", "BF16"], folder=tmp_path / "made", settings=careful)
    [commit] = hub.commits
    assert set(commit) == set(done.files)
    assert "imatrix.gguf" not in commit
    [name] = [name for name in commit if "Q4_K_M" in name]
    plain = convert(EXAMPLE, tmp_path / name, "Q4_K_M").files[0]
    ours, theirs = (GGUFFile.open(path) for path in (done.folder / name, plain.path))
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert {n: i.type for n, i in ours.tensors.items()} == {
        n: i.type for n, i in theirs.tensors.items()
    }
    assert commit[name] != plain.path.read_bytes()
    report = json.loads(commit["verification.json"])
    assert all(file["passed"] for file in report["files"])
    [card] = hub.cards
    assert " --calibrate --to me/tiny-lfm2-GGUF" in card
    assert "rounded for what its layer sees" in card
    assert not [name for name in commit if name.startswith(".")]  # what it works with
