"""Opening a model file: everything that is made of it, closed together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lfm2gguf import loadable
from lfm2gguf.chat.dialect import LFM2, Dialect
from lfm2gguf.chat.template import Template
from lfm2gguf.chat.template_set import BARE_LIST, MARKED_LIST, TemplateSet
from lfm2gguf.errors import OptionError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.llamacpp import (
    Adapter,
    Context,
    DeviceReport,
    Model,
    Projector,
    available_memory,
    check_threads,
    choose,
    report,
)
from lfm2gguf.loadable import Trial
from lfm2gguf.members import member_of, trained_context
from lfm2gguf.runner import placement
from lfm2gguf.runner.arguments import FilePath
from lfm2gguf.runner.embeddings import Embedder
from lfm2gguf.runner.engine.draft import Draft
from lfm2gguf.runner.engine.guesses import Guesses, Lookup
from lfm2gguf.runner.engine.queue import MOST_SCORED
from lfm2gguf.runner.media import Encoder

DEFAULT_CONTEXT = 8_192
MOST_DRAFTED = 8  # tokens of a draft model at once
MOST_GUESSES = 64  # more would hold up the first wrong one for too long
MOST_READ = 0.25  # of the free memory: weights that take more stay in the file
MOST_CONTEXT = (1 << 31) - 1  # tokens: positions are llama_pos, an int32 (include/llama.h)
MOST_SEQUENCES = 256  # LLAMA_MAX_SEQ (src/llama-cparams.h)


@dataclass(frozen=True)
class Opened:
    """What a model file was opened into; ``close`` frees all of it."""

    file: GGUFFile
    model: Model
    context: Context
    device: DeviceReport
    adapters: dict[str, Adapter]
    embedder: Embedder
    encoder: Encoder | None
    templates: TemplateSet | None
    dialect: Dialect
    guesses: Callable[[], Guesses] | None
    close: Callable[[], None]


def open_model(
    path: Path,
    *,
    device: str,
    gpu_layers: int | None,
    context: int | None,
    parallel: int,
    lookup: int,
    draft: FilePath | None,
    threads: int | None,
    adapters: Mapping[str, FilePath],
    mmproj: FilePath | None,
    inject_tools: bool,
    mmap: bool | None,
) -> Opened:
    """Open a file, its adapters and its projector on a device.

    Raises:
        OptionError: a setting is out of its range.
        GGUFError: a file cannot be run.
        DeviceError: the device is not there, or lacks memory.
    """
    check_threads(threads)
    _check(parallel=parallel, context=context)
    if not 0 <= lookup <= MOST_GUESSES:
        raise OptionError(f"lookup is {lookup}: it must be 0 (off) to {MOST_GUESSES}")
    trying = Trial(path, Path(mmproj) if mmproj else None)  # its child starts while this goes on
    with trying as trial, contextlib.ExitStack() as parts:  # closed if the rest fails
        file = placement.check_file(path)
        draft_file = placement.check_draft(Path(draft), file) if draft else None
        projector = placement.check_projector(Path(mmproj)) if mmproj else None
        if not trial.knows(file):
            loadable.check_rules(file)
            trial.start(file)
        if draft_file:
            loadable.check_loadable(draft_file)
        n_ctx = context or min(trained_context(file), DEFAULT_CONTEXT)
        on, layers = placement.place(file, choose(device), gpu_layers, device, n_ctx)
        size, free = sum(info.nbytes for info in file.tensors.values()), available_memory()
        if not on:
            placement.check_memory(path, size, free)
            placement.check_context(file, n_ctx, free and free - size)
        if mmap is None:
            mmap = bool(on) or free is None or size > MOST_READ * free
        trial.loaded()
        model = parts.enter_context(Model(path, on, layers, mmap=mmap))
        trial.computed()
        loaded = _load_adapters(model, adapters, file)
        most = lookup or (MOST_DRAFTED if draft_file else 0)
        made = parts.enter_context(
            Context(
                model,
                n_ctx=n_ctx,
                n_seq_max=parallel,
                n_outputs=parallel + most + MOST_SCORED,
                rollback=most,
                threads=threads,
                unified=True,
            )
        )
        drafted = None
        if draft_file:
            small = parts.enter_context(Model(draft_file.path, on, -1))
            drafted = parts.enter_context(contextlib.closing(Draft(small, threads, made.n_ctx)))
        listed = _tool_list(file) if inject_tools else None
        templates = _make_templates(model, listed)
        embedder = parts.enter_context(contextlib.closing(Embedder(model, file, threads)))
        encoder = _open_projector(projector, model, threads)
        if encoder:
            parts.callback(encoder.close)
        return Opened(
            file=file,
            model=model,
            context=made,
            device=report(model, made, on),
            adapters=loaded,
            embedder=embedder,
            encoder=encoder,
            templates=templates,
            dialect=templates.with_tools.dialect if templates else LFM2,
            guesses=_guesses(made.rollback, lookup, drafted),
            close=parts.pop_all().close,
        )


def _guesses(most: int, lookup: int, draft: Draft | None) -> Callable[[], Guesses] | None:
    if not most:
        return None

    def of_request() -> Guesses:
        return Guesses(most, *([Lookup()] if lookup else []), *([draft] if draft else []))

    return of_request


def _check(*, parallel: int, context: int | None) -> None:
    for name, value in {"parallel": parallel, "context": context}.items():
        if value is not None and value < 1:
            raise OptionError(f"{name} is {value}: it must be at least 1")
    if context and context > MOST_CONTEXT:
        raise OptionError(f"context is {context}: llama.cpp counts {MOST_CONTEXT} tokens at most")
    if parallel > MOST_SEQUENCES:
        raise OptionError(
            f"parallel is {parallel}: llama.cpp computes {MOST_SEQUENCES} sequences at most"
        )


def _load_adapters(
    model: Model, paths: Mapping[str, FilePath], file: GGUFFile
) -> dict[str, Adapter]:
    for path in paths.values():
        placement.check_adapter(Path(path), file)
    return {name: model.load_adapter(path) for name, path in paths.items()}


def _open_projector(file: GGUFFile | None, model: Model, threads: int | None) -> Encoder | None:
    if file is None:
        return None
    longest = placement.longest_sound(file)
    return Encoder(Projector(file.path, model, threads=threads, longest_sound=longest))


def _tool_list(file: GGUFFile) -> tuple[str, str]:
    return MARKED_LIST if member_of(file).marks_tools else BARE_LIST


def _make_templates(model: Model, tool_list: tuple[str, str] | None) -> TemplateSet | None:
    default, tool_use = model.chat_template(), model.chat_template("tool_use")
    plain, with_tools = default or tool_use, tool_use or default
    if plain is None or with_tools is None:
        return None
    made = {source: _make_template(model, source) for source in {plain, with_tools}}
    return TemplateSet(made[plain], made[with_tools], tool_list)


def _make_template(model: Model, source: str) -> Template:
    pad = int(model.metadata.get("tokenizer.ggml.padding_token_id", -1))
    bos, eos, pad_text = (
        model.token_text(token) if token >= 0 else "" for token in (model.bos, model.eos, pad)
    )
    return Template(source, bos=bos, eos=eos, pad=pad_text)
