"""A schema laid out as one model reads it: texts become tokens, elements become positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from thinkonce.kv.modules.layout import Layout, Leaf, Path, Place, Slot
from thinkonce.kv.modules.schema import (
    Child,
    Message,
    Module,
    Parameter,
    Schema,
    Text,
    Union,
    refused,
)

__all__ = ("MOST_ROWS", "Cut", "Frame", "laid_out")

MOST_ROWS = 1 << 20
"""Tokens of all texts and parameters together."""
Cut = Callable[[str], Sequence[int]]
"""The tokens of a text on its own."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Tokens that a chat template writes around a message."""

    before: Sequence[int] = ()
    after: Sequence[int] = ()


def laid_out(
    schema: Schema,
    cut: Cut,
    unknown: int,
    frames: Mapping[int, Frame] | None = None,
    most: int = MOST_ROWS,
) -> Layout:
    """`unknown`: the token that fills what a parameter's scaffold leaves. `frames`: of messages,
    by their number in the document; none are framed without. `most`: positions that there are.

    Raises RequestError for a scaffold longer than its parameter, for a schema without text, and
    for one that goes beyond these positions, as soon as it does.
    """
    laying = _Laying(cut, unknown, frames or {}, most)
    end = laying.place(schema.children, 0, (), kept=True)
    if not laying.leaves:
        raise refused(schema, schema.name, "a text somewhere")
    return Layout(schema.name, end, tuple(laying.leaves), tuple(laying.slots), dict(laying.modules))


@dataclass(slots=True)
class _Laying:
    cut: Cut
    unknown: int
    frames: Mapping[int, Frame]
    most: int
    leaves: list[Leaf] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    modules: dict[Path, Place] = field(default_factory=dict)
    unions: int = 0
    messages: int = 0
    rows: int = 0

    def place(self, children: Sequence[Child], at: int, path: Path, *, kept: bool) -> int:
        """Lay these out from that position on; the position behind them."""
        for child in children:
            match child:
                case str() | Text():
                    text = child if isinstance(child, str) else child.text
                    tokens = self.cut(text)
                    self._check_room(child, at, len(tokens))
                    at = self._leaf(tokens, at, path, kept)
                case Parameter():
                    at = self._slot(child, at, path)
                case Module():
                    at = self._module(child, at, path, kept)
                case Union():
                    at = self._union(child, at, path, kept)
                case Message():
                    at = self._message(child, at, path, kept)
        return at

    def _check_room(self, element: Child, at: int, tokens: int) -> None:
        """Raises RequestError where so many are too many; asked before they are made."""
        self.rows += tokens
        kind = "text" if isinstance(element, str) else element
        if at + tokens > self.most:
            accepts = f"fewer than {self.most} positions, this model's context"
            raise refused(kind, f"{tokens} tokens from position {at} on", accepts)
        if self.rows > MOST_ROWS:
            raise refused(kind, f"{self.rows} tokens up to here", f"at most {MOST_ROWS} in all")

    def _leaf(self, tokens: Sequence[int], at: int, path: Path, kept: bool) -> int:
        if tokens:
            self.leaves.append(Leaf(at, tuple(tokens), path, kept))
        return at + len(tokens)

    def _slot(self, parameter: Parameter, at: int, path: Path) -> int:
        self._check_room(parameter, at, parameter.length)
        tokens = tuple(self.cut(parameter.scaffold)) if parameter.scaffold else ()
        if len(tokens) > parameter.length:
            accepts = f"a scaffold of at most {parameter.length} tokens, its length"
            raise refused(parameter, f"{len(tokens)} tokens", accepts)
        filled = (*tokens, *[self.unknown] * (parameter.length - len(tokens)))
        self.slots.append(Slot(parameter.name, at, parameter.length, filled, path))
        return at + parameter.length

    def _module(self, module: Module, at: int, path: Path, kept: bool) -> int:
        path = (*path, module.name)
        self.modules[path] = Place(at, at)  # in the document's order: parents come first
        end = self.place(module.children, at, path, kept=kept and module.cache)
        self.modules[path] = Place(at, end)
        return end

    def _union(self, union: Union, at: int, path: Path, kept: bool) -> int:
        self.unions += 1
        number, end = self.unions, at
        for member in union.members:
            end = max(end, self._module(member, at, path, kept))
            its = (*path, member.name)
            is_default = member.name == union.default.name
            self.modules[its] = replace(self.modules[its], union=number, is_default=is_default)
        return end

    def _message(self, message: Message, at: int, path: Path, kept: bool) -> int:
        frame = self.frames.get(self.messages, Frame())
        self.messages += 1
        at = self._leaf(frame.before, at, path, kept)
        at = self.place(message.children, at, path, kept=kept)
        return self._leaf(frame.after, at, path, kept)
