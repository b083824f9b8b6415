"""What goes over the wire: the class of all that clients send and the server answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """A model whose validator is built when it is first used.

    There are a hundred, of which a chat needs twenty: a start would wait for the others.
    """

    model_config = ConfigDict(defer_build=True)
