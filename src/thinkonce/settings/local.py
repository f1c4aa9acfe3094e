"""The model on this machine: the table [local]."""

from __future__ import annotations

from typing import Annotated, Literal

from thinkonce.settings.section import YES_NO, Section, about, seconds

__all__ = ("Local",)


class Local(Section, frozen=True):
    """The local model behind `serve --local`, and `serve-model`."""

    enabled: Annotated[
        bool, about("Start a local model behind the gateway.", YES_NO, fixed=True)
    ] = False
    model: Annotated[
        str, about("The model to serve.", "a packaged model's name or a directory", fixed=True)
    ] = "SmolLM2-135M-Instruct"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        about(
            "Numbers it computes with; auto: those of its weights.",
            "auto, float32, bfloat16 or float16",
            fixed=True,
        ),
    ] = "auto"
    device: Annotated[
        str,
        about(
            "Where it computes. Attention state is kept in main memory. On a GPU it is first seen "
            "whether reading from memory gives equal bits; if not, nothing is reused.",
            "cpu, cuda, cuda:1, ...",
            fixed=True,
        ),
    ] = "cpu"
    threads: Annotated[
        int,
        about(
            "Threads a forward pass uses; 0: all cores.",
            "0 to 256",
            least=0,
            most=256,
            fixed=True,
        ),
    ] = 0
    queue: Annotated[
        int,
        about(
            "Requests that may wait for the model; beyond it 429.",
            "0 to 10000",
            least=0,
            most=10_000,
            fixed=True,
        ),
    ] = 16
    queue_tokens: Annotated[
        int,
        about(
            "Tokens that the prompts of those may have together; beyond it 429. An empty line "
            "takes a prompt of any length.",
            "1 or more",
            least=1,
            fixed=True,
        ),
    ] = 262_144
    deadline: Annotated[
        float,
        seconds("Most time for an answer, with the wait for it; then 504. 0: none.", fixed=True),
    ] = 0.0
