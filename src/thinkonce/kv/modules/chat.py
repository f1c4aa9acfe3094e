"""A schema's messages as a model's own chat template writes them, and what follows them.

    rendered   <|im_start|>system\\n | mark 1 | <|im_end|>\\n | <|im_start|>user\\n | mark 2
    frames     before 1             |        | after 1     | before 2           |         open
    a request                                                                     continues here

A template writes a conversation; it is rendered message by message, and what is added each time is
that message's own. A last message of the user stays open: the first message of a request, which
must be the user's, goes on in it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from thinkonce.errors import RequestError
from thinkonce.kv.modules.laying import MOST_ROWS, Frame, laid_out
from thinkonce.kv.modules.layout import Layout, shown
from thinkonce.kv.modules.schema import Child, Message, Module, Schema, Text, Union, check, refused

__all__ = ("Chat", "Compiled", "compiled")

MOST_MESSAGES = 256
"""Of a schema: each is rendered behind all before it."""
MOST_PARTS = 1 << 20
"""Of all scaffolds of a schema together, texts and parameters looked at for each."""


@dataclass(frozen=True, slots=True)
class Chat:
    """`messages`: with a mark in place of what each says. `known`: what the template writes of
    them, as far as the schema has it; `is_open`: within the last.
    """

    messages: tuple[dict[str, str], ...]
    known: str
    is_open: bool

    def trailing(self, tokenizer: Any, asked: Sequence[dict[str, Any]]) -> str:
        """What the template writes behind the schema for these messages. Raises RequestError."""
        written = [*self.messages, *asked]
        if self.is_open:
            first, last = asked[0], self.messages[-1]
            if first["role"] != "user":
                accepts = "user: the schema's last message is the user's, and it goes on in that"
                raise RequestError("messages[0].role", first["role"], accepts)
            joined = {**first, "content": last["content"] + first["content"]}
            written = [*self.messages[:-1], joined, *asked[1:]]
        text = _rendered(tokenizer, written, ends=True)
        if not text.startswith(self.known):
            accepts = "messages that this model's template writes behind those of a schema"
            raise RequestError("messages", f"{len(asked)} messages", accepts)
        return text[len(self.known) :]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A schema as one model's chats read it."""

    layout: Layout
    chat: Chat

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def rows(self) -> int:
        """Tokens of all scaffolds: what is computed where nothing is known."""
        return sum(len(each.tokens) for each in self.layout.scaffolds.values())

    def described(self) -> dict[str, Any]:
        """For people: names, and positions in tokens."""
        layout = self.layout
        return {
            "name": layout.name,
            "positions": layout.length,
            "tokens": sum(len(leaf.tokens) for leaf in layout.leaves),
            "scaffolds": len(layout.homes),
            "modules": {
                shown(path): {"start": place.start, "end": place.end, "union": place.union}
                for path, place in layout.modules.items()
            },
            "parameters": {
                shown((*slot.module, slot.name)): {"start": slot.start, "length": slot.length}
                for slot in layout.slots
            },
        }


def compiled(schema: Schema, tokenizer: Any, context_tokens: int) -> Compiled:
    """`context_tokens`: positions that the model has.

    Raises RequestError that names the element, and its line where it has one.
    """
    check(schema)
    frames, chat = _framed(tokenizer, schema)
    longest = context_tokens * max(map(len, tokenizer.get_vocab()))

    def cut(text: str) -> Sequence[int]:
        """Special tokens that somebody wrote are text."""
        if len(text) > longest:  # to tokenise megabytes takes up to a minute
            accepts = f"at most {longest}: this model's context holds no more"
            raise refused("text", f"{len(text)} characters", accepts)
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(ids)

    layout = laid_out(schema, cut, _unknown(tokenizer), frames, context_tokens)
    if layout.length >= context_tokens:
        accepts = f"fewer than {context_tokens}, this model's context"
        raise refused(schema, f"{layout.length} positions", accepts)
    parts = len(layout.homes) * (len(layout.leaves) + len(layout.slots))
    if parts > MOST_PARTS:
        accepts = f"at most {MOST_PARTS} in all scaffolds; members of unions take one each"
        raise refused(schema, f"{parts} texts and parameters", accepts)
    rows = _rows(layout)
    if rows > MOST_ROWS:
        accepts = f"at most {MOST_ROWS} in all scaffolds; members of unions take one each"
        raise refused(schema, f"{rows} tokens", accepts)
    return Compiled(layout, chat)


def _rows(layout: Layout) -> int:
    """At least what all scaffolds take, without making them."""
    return len(layout.homes) * sum(
        len(leaf.tokens) for leaf in layout.leaves if layout.is_in(leaf.module, ())
    )


def _unknown(tokenizer: Any) -> int:
    """What stands for nothing known: byte-level tokenizers have no token for that."""
    for name in ("unk_token_id", "pad_token_id", "eos_token_id"):
        if (token := getattr(tokenizer, name, None)) is not None:
            return int(token)
    return 0


# -- frames ----------------------------------------------------------------------------------------


def _framed(tokenizer: Any, schema: Schema) -> tuple[Mapping[int, Frame], Chat]:
    elements = list(_messages(schema.children, within=False))
    if not elements:
        raise refused(schema, schema.name, "a <system>, <user> or <assistant> with the texts in it")
    if len(elements) > MOST_MESSAGES:
        raise refused(schema, f"{len(elements)} messages", f"at most {MOST_MESSAGES}")
    marks = [f"text{secrets.token_hex(8)}e" for _ in elements]
    written = [
        {"role": element.role, "content": mark}
        for element, mark in zip(elements, marks, strict=True)
    ]
    frames, known, is_open = dict[int, Frame](), "", schema.children[-1] is elements[-1]
    is_open = is_open and elements[-1].role == "user"
    for number, (element, mark) in enumerate(zip(elements, marks, strict=True)):
        text = _written(tokenizer, written[: number + 1], element)
        if not text.startswith(known) or text[len(known) :].count(mark) != 1:
            got = "this model's chat template"
            raise refused(element, got, "one that writes each message behind those before it")
        before, _, after = text[len(known) :].partition(mark)
        is_last_open = is_open and number == len(elements) - 1
        frames[number] = Frame(
            _special(tokenizer, before), () if is_last_open else _special(tokenizer, after)
        )
        known = text.removesuffix(after) if is_last_open else text
    return frames, Chat(tuple(written), known, is_open)


def _messages(children: Sequence[Child], *, within: bool) -> Iterator[Message]:
    """In the document's order. Raises RequestError for what is said outside of them."""
    for child in children:
        match child:
            case Message():
                yield child
                list(_messages(child.children, within=True))
            case str() | Text() if not within:
                said = child if isinstance(child, str) else child.text
                raise refused(
                    "text", said, "a place in <system>, <user> or <assistant>", _at(child)
                )
            case Module():
                yield from _messages(child.children, within=within)
            case Union():
                yield from _messages(child.members, within=within)


def _at(child: Child) -> int:
    return getattr(child, "line", 0)


def _written(tokenizer: Any, messages: list[dict[str, str]], element: Message) -> str:
    try:
        return _rendered(tokenizer, messages, ends=False)
    except RequestError as wrong:
        raise refused(element, "this model's chat template", wrong.accepts) from wrong


def _rendered(tokenizer: Any, messages: Sequence[dict[str, Any]], *, ends: bool) -> str:
    """`ends`: so that an answer follows."""
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=ends, tokenize=False
        )
    except (TemplateError, TypeError, ValueError, KeyError) as wrong:
        accepts = f"messages this model's chat template takes ({wrong})"
        raise RequestError("messages", f"{len(messages)} messages", accepts) from wrong
    return text


def _special(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Of what the template wrote, special tokens among it."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()
