"""``lfm2gguf inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lfm2gguf_cli.groups import grouped
from lfm2gguf_cli.options import HubType, PathOrId, Revision, Saying

if TYPE_CHECKING:
    from lfm2gguf.doctor import Description
    from lfm2gguf_cli.console import Display


@grouped
def inspect(
    path: PathOrId,
    full: Annotated[
        bool, typer.Option("--full", help="Show arrays whole, such as the vocabulary.")
    ] = False,
    *,
    type: HubType = None,
    revision: Revision = None,
    saying: Saying,
) -> None:
    """Show the metadata and the tensors of a GGUF file or of a checkpoint.

    Example: lfm2gguf inspect LFM2-1.2B-Q4_K_M.gguf
    """
    from lfm2gguf.doctor import describe

    display = saying.display()
    found = describe(path, full=full, type=type, revision=revision)
    if not display.gives(found.to_json):
        _show(display, found)
    display.next("lfm2gguf", "doctor", path)


def _show(display: Display, found: Description) -> None:
    from lfm2gguf.rendering import file_size
    from lfm2gguf_cli.tables import shape

    display.table(("key", "value"), [(key, _short(x)) for key, x in found.metadata.items()])
    rows = [(t.name, shape(t.shape), t.type, str(t.nbytes)) for t in found.tensors]
    display.table(("tensor", "shape", "type", "bytes"), rows)
    types = ", ".join(f"{row['tensors']} {name}" for name, row in found.by_type.items())
    bits = 8 * found.nbytes / max(1, found.n_weights)
    display.line(
        f"{found.path}: {found.n_weights:,} weights, {file_size(found.nbytes)}, "
        f"{bits:.2f} bits/weight, {len(found.tensors)} tensors ({types})"
    )


def _short(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"length", "first"}:
        return f"{value['length']} items: {_short(value['first'])[:-1]}, ...]"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
