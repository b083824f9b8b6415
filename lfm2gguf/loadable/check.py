"""The one question: whether llama.cpp can load a file and compute it."""

from __future__ import annotations

from lfm2gguf.errors import GGUFError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.loadable.rules import Contents, problems
from lfm2gguf.loadable.trial import Trial


def check_rules(file: GGUFFile) -> None:
    """Refuse a file of which it is known that llama.cpp refuses it or ends the process.

    Raises:
        GGUFError: saying what is wrong with it, and what to do.

    """
    found = next(problems(Contents.of(file)), None)
    if found:
        raise GGUFError(f"{file.path}: {found.where} {found.what}; {found.fix}")


def check_loadable(file: GGUFFile) -> None:
    """Refuse a file that llama.cpp would refuse, or that would end the process.

    A file that this machine has not seen is loaded in a child process first;
    ``LFM2GGUF_TRIAL=0`` leaves that out.

    Raises:
        GGUFError: saying what is wrong with it, and what to do.

    """
    with Trial(file.path) as trial:
        if not trial.knows(file):
            check_rules(file)
            trial.start(file)
            trial.computed()
