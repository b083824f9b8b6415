"""The card of a repository: the page that people read before they download anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import yaml

from lfm2gguf.conversion import WrittenFile
from lfm2gguf.install import install_elsewhere
from lfm2gguf.publication.origin import HUB
from lfm2gguf.publication.plan import PublicationPlan
from lfm2gguf.rendering import Table, escaped, markdown_table
from lfm2gguf.verification import Figures, Similarity, Verification
from lfm2gguf.verification.report.words import conditions
from lfm2gguf.version import __version__

PROJECT = "https://pypi.org/project/lfm2gguf/"
USUAL = "Q4_K_M"  # what commands name, where there is one


@dataclass(frozen=True)
class Card:
    """What a card tells of: the plan, and what became of it.

    ``results`` judge ``written``, file by file; ``beside`` are projector and adapter; ``chats``
    says whether the model has a template for conversations.
    """

    planned: PublicationPlan
    written: tuple[WrittenFile, ...]
    beside: tuple[WrittenFile, ...]
    results: tuple[Verification, ...]
    chats: bool
    picture: str


def card(about: Card) -> str:
    """Return README.md: front matter, files with what they lose, how made, how run."""
    planned = about.planned
    data = planned.origin.front_matter(retrieval=planned.retrieval)
    front = yaml.safe_dump(
        {key: value for key, value in data.items() if value}, sort_keys=False, allow_unicode=True
    )
    body = "\n".join([*_head(about), *_files(about), *_made(about), *_run(about)])
    return f"---\n{front}---\n\n{body}"


def _head(about: Card) -> Iterator[str]:
    origin = about.planned.origin
    name = escaped(about.planned.repository.split("/")[1])
    base = escaped(origin.name)
    if origin.repository:
        base = f"[{origin.repository}]({HUB}/{origin.repository})"
    yield f"# {name}"
    yield ""
    yield f"GGUF files of {base}, for llama.cpp and the programs that are built on it."
    yield ""


def _files(about: Card) -> Iterator[str]:
    yield "## Files"
    yield ""
    heads = ("file", "size", "bits/weight", *_figures(_shipped(about.results[0])))
    rows = [
        (
            _link(file),
            _size(file.nbytes),
            f"{file.bits_per_weight:.2f}",
            *_figures(_shipped(r)).values(),
        )
        for file, r in zip(about.written, about.results, strict=True)
    ]
    yield from markdown_table(Table("", heads, rows))
    yield ""
    yield f"Measured on {escaped(conditions(about.results[0]))}."
    yield from _explained(_shipped(about.results[0]))
    yield "[verification.md](verification.md) has every figure, and every gate that they passed."
    yield ""
    yield f"![What the files lose]({about.picture})"
    yield ""
    for file in about.beside:
        yield f"- {_link(file)} ({_size(file.nbytes)}): {_role(file)}"
    if about.planned.matrix:
        yield "- [imatrix.gguf](imatrix.gguf): the importance matrix, for other types of your own"
    yield ""


def _link(file: WrittenFile) -> str:
    return f"[{escaped(file.path.name)}]({escaped(file.path.name)})"


def _role(file: WrittenFile) -> str:
    if file.path.name.startswith("mmproj-"):
        return "the projector, which images and sound need"
    return "a LoRA adapter, to be loaded beside a file of the model (`--lora`)"


@singledispatch
def _figures(found: Any) -> dict[str, str]:
    """Return what a card says of a file, by column."""
    raise TypeError(found)


@_figures.register
def _(found: Figures) -> dict[str, str]:
    return {
        "KL divergence": f"{found.kld.value:.4f}",
        "same top token": f"{100 * found.same_top.value:.1f} %",
        "perplexity": f"{found.ppl_candidate.value:.3f}",
    }


@_figures.register
def _(found: Similarity) -> dict[str, str]:
    return {
        "cosine": f"{found.cosine.value:.4f}",
        "rank correlation": f"{found.rank_correlation.value:.4f}",
        "same of the ten best": f"{100 * found.best_overlap.value:.1f} %",
    }


def _shipped(result: Verification) -> Figures | Similarity:
    return result.similarity if result.scores is None else result.figures


@singledispatch
def _explained(found: Any) -> Iterator[str]:
    """Say what the columns mean."""
    raise TypeError(found)


@_explained.register
def _(found: Figures) -> Iterator[str]:
    yield (
        "KL divergence: mean distance of the file's predictions from the checkpoint's, in nats; "
        "0 is no loss. Same top token: how often both prefer the same next token. The checkpoint's "
        f"own perplexity on this text is {found.ppl_reference.value:.3f}."
    )


@_explained.register
def _(found: Similarity) -> Iterator[str]:
    yield (
        "Each figure compares the file's vectors, or the documents that they rank, with the "
        "checkpoint's; 1 and 100 % are no loss."
    )


def _made(about: Card) -> Iterator[str]:
    planned, settings = about.planned, about.planned.settings
    source = planned.origin.repository or planned.origin.name
    types = " ".join(f"-t {draft.type.name}" for draft in planned.model.drafts)
    revision = f" --revision {planned.origin.commit}" if planned.origin.commit else ""
    option = " --calibrate" if settings.calibrate else ""
    lora = f" --lora {escaped(str(settings.lora))}" if settings.lora else ""
    yield "## How they were made"
    yield ""
    yield "```console"
    yield f"$ lfm2gguf publish {source}{revision} {types}{option}{lora} --to {planned.repository}"
    yield "```"
    yield ""
    yield _how(about)
    yield ""


def _how(about: Card) -> str:
    versions = about.results[0].versions
    llamacpp = versions.get("llama_cpp_python")
    by = f"[lfm2gguf]({PROJECT}) {__version__}"
    weights = "straight from the checkpoint's safetensors"
    if about.planned.matrix:
        weights += ", with an importance matrix (`imatrix.gguf`), as llama-quantize writes them"
    elif about.planned.settings.calibrate:
        weights += ", every weight rounded for what its layer sees and what the layers before lost"
    ran = f", as llama-cpp-python {llamacpp} runs it," if llamacpp else ""
    return (
        f"{by} wrote them {weights}. Each file{ran} was then compared with the checkpoint, "
        "and passed."
    )


def _run(about: Card) -> Iterator[str]:
    to = about.planned.repository
    types = [file.type for file in about.written]
    type = USUAL if USUAL in types else types[0]
    yield "## How to run them"
    yield ""
    for title, lines in _programs(about, to, type):
        yield f"{title}:"
        yield ""
        yield from lines
        yield ""


def _programs(about: Card, to: str, type: str) -> Iterator[tuple[str, Sequence[str]]]:
    if about.planned.retrieval:
        yield "llama.cpp", _console(f"llama-server -hf {to}:{type} --embeddings")
        serve = f"lfm2gguf serve {to} -t {type}"
        yield "lfm2gguf", _console(install_elsewhere("serve"), serve)
        return
    yield "llama.cpp", _console(f"llama-server -hf {to}:{type}")
    if about.chats:
        yield "Ollama", _console(f"ollama run hf.co/{to}:{type}")
    yield "LM Studio", _console(f"lms get {HUB}/{to}@{type.lower()}")
    yield (
        "llama-cpp-python",
        [
            "```python",
            "from llama_cpp import Llama",
            "",
            f'llm = Llama.from_pretrained("{to}", filename="*{type}.gguf")',
            'print(llm.create_chat_completion([{"role": "user", "content": "Hello"}]))'
            if about.chats
            else 'print(llm("Once upon a time", max_tokens=64))',
            "```",
        ],
    )
    yield "lfm2gguf", _console(install_elsewhere("run"), f"lfm2gguf run {to} -t {type}")


def _console(*commands: str) -> list[str]:
    return ["```console", *(f"$ {command}" for command in commands), "```"]


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
