"""A text completion in its two shapes. Both say `text_completion`; a choice is flat in both.

chunks                                        object
choices[i].text           "a" "b"        <->  "ab"
....logprobs.tokens, ...  [x] [y]        <->  [x, y], list by list
anything else, if all chunks agree on it <->  as it is, on the choice's last chunk
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from thinkonce.protocols.chunks.shapes import Shapes, assemble_chunks, split_chunks
from thinkonce.protocols.merging import Object, agree, joined, merge_lists, pieces_of

__all__ = ("COMPLETIONS_SHAPES", "assemble", "split")

_KIND = "text_completion"


def assemble(events: Sequence[bytes]) -> Object | None:
    """The object the chunks amount to; None if it cannot be told without loss."""
    return assemble_chunks(events, _KIND, _merge_choice, _finished)


def _merge_choice(into: Object, choice: Object) -> None:
    for name, value in choice.items():
        if name == "text":
            into[name] = joined(into.get(name), value)
        elif name == "logprobs":
            into[name] = merge_lists(into.get(name), value)
        elif name != "index":
            into[name] = agree(into.get(name), value)


def _finished(choice: Object) -> Object:
    choice.setdefault("finish_reason", None)
    return choice


def split(body: Object) -> list[bytes] | None:
    """Chunks that assemble to `body`, without any usage; None if it is not a completion."""
    return split_chunks(body, _KIND, _choice_pieces)


def _choice_pieces(choice: Object) -> Iterator[Object]:
    """The text, then the end with all the rest."""
    text, logprobs = choice["text"], choice.get("logprobs")
    if not isinstance(text, str):
        raise TypeError("a choice without a text is not a completion")
    common: Object = {"index": choice["index"]}
    nothing = {"logprobs": None} if "logprobs" in choice else {}
    if logprobs is not None:
        # Which of them belong to which part of the text only their maker knows: they stay together.
        yield {**common, "text": text, "logprobs": logprobs, "finish_reason": None}
    else:
        for piece in pieces_of(text):
            yield {**common, "text": piece, **nothing, "finish_reason": None}
    yield {**choice, "text": "", **nothing}


COMPLETIONS_SHAPES = Shapes(assemble, split)
