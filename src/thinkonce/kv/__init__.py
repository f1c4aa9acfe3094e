"""The engine: a local model behind OpenAI's and Anthropic's protocols, or in a user's process.

Importing this loads no torch.

weights/      model files: found, converted once, loaded
serving/      a request on its way: server, app, intake, ask, prompt; scheduler, one worker in a
              bounded line; answer, reply, delivery back to the client; explain, preload
engine        attention state reused where the model allows it
embedded      the same without a server
generation/   tokens from the model: generator is the seam, exact reads each prefix once,
              plain reads anew
prefix/       names of blocks, whose they are, what is in memory, what goes first, and what is
              remembered of it
disk/         blocks in files, under a budget, sealed where there is a key
reuse/        documents at any place: moved, repaired, audited
modules/      schemas: texts with fixed positions, encoded once, put together by name
sentence/     answers that attend to the sentences of a long prompt that matter
planning/     recorded requests replayed through the index of prefix/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thinkonce.kv.embedded import Engine

__all__ = ("Engine",)


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from thinkonce.kv.embedded import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
