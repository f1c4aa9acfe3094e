"""A prompt put together from a schema: which modules, with which arguments, and what follows.

    schema     | You are. | I am [who   ] | doctor | farmer ... | Be brief. |
    prompt     | You are. | I am  Ann     |        | farmer ... | Be brief. | And then?
    position   0          4       7   9            15           22          25
    rows       0..........................9........10......................................

Rows are in the order of their positions; a token sees what has a smaller one, and itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

from thinkonce.errors import RequestError
from thinkonce.kv.modules.laying import Cut
from thinkonce.kv.modules.layout import Layout, Leaf, Path, Slot, shown
from thinkonce.kv.prefix.prompt import Prompt

__all__ = ("ModulePrompt", "Piece", "SchemaPrompt", "put_together")

_MOST_SHOWN = 20  # names in an error


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens at positions that follow each other; `leaf`: whose state may be known."""

    start: int
    tokens: tuple[int, ...]
    leaf: Leaf | None = None


class ModulePrompt(Prompt):
    """Token ids in the order of their positions, of a schema that is laid out."""

    layout: Layout
    pieces: tuple[Piece, ...]
    is_exact: bool

    @classmethod
    def made(
        cls, layout: Layout, pieces: Iterable[Piece], *, is_exact: bool = False
    ) -> ModulePrompt:
        """Of pieces of which none lies within another. `is_exact`: nothing is to be reused."""
        ordered = sorted(pieces, key=lambda piece: piece.start)
        prompt = cls(chain.from_iterable(piece.tokens for piece in ordered))
        prompt.layout, prompt.pieces, prompt.is_exact = layout, tuple(ordered), is_exact
        return prompt

    @property
    def is_plain(self) -> bool:
        return False

    @property
    def positions(self) -> list[int]:
        """Of its tokens, growing."""
        ranges = (range(p.start, p.start + len(p.tokens)) for p in self.pieces)
        return list(chain.from_iterable(ranges))

    @property
    def end(self) -> int:
        """The position behind the last: with holes, more than there are tokens."""
        last = self.pieces[-1]
        return last.start + len(last.tokens)

    @property
    def homes(self) -> tuple[Path, ...]:
        """The scaffolds in which its leaves are encoded."""
        kept = (piece.leaf for piece in self.pieces if piece.leaf is not None)
        return tuple(dict.fromkeys(self.layout.home(leaf.module) for leaf in kept))

    def room_ahead(self, keepable: int) -> int:
        return max((len(self.layout.scaffolds[home].tokens) for home in self.homes), default=0)


class SchemaPrompt(Prompt):
    """What is read to have all of a schema: its scaffolds, one after the other."""

    layout: Layout

    @classmethod
    def made(cls, layout: Layout) -> SchemaPrompt:
        prompt = cls(chain.from_iterable(each.tokens for each in layout.scaffolds.values()))
        prompt.layout = layout
        return prompt

    @property
    def homes(self) -> tuple[Path, ...]:
        return self.layout.homes

    def room_ahead(self, keepable: int) -> int:
        return max(len(each.tokens) for each in self.layout.scaffolds.values())


def put_together(
    layout: Layout,
    modules: Sequence[str],
    arguments: Mapping[str, str],
    trailing: Sequence[int],
    cut: Cut,
    *,
    is_exact: bool = False,
) -> ModulePrompt:
    """`modules`: as `age/young`, or `young` where no other is called so; one in another takes
    that too. Each parameter of what is taken gets an argument, "" to leave it out.

    Raises RequestError that names what is wrong in them.
    """
    taken = _taken(layout, modules)
    given = _arguments(layout, arguments, taken)
    pieces = [
        Piece(leaf.start, leaf.tokens, leaf if leaf.is_kept else None)
        for leaf in layout.leaves
        if leaf.module in taken
    ]
    for slot in layout.slots:
        if slot.module in taken and (tokens := _fitting(slot, given, cut)):
            pieces.append(Piece(slot.start, tokens))
    if trailing:
        pieces.append(Piece(layout.length, tuple(trailing)))
    return ModulePrompt.made(layout, pieces, is_exact=is_exact)


# -- modules ---------------------------------------------------------------------------------------


def _taken(layout: Layout, names: Sequence[str]) -> set[Path]:
    taken: set[Path] = {()}
    unions: dict[int, Path] = {}
    for number, name in zip(count(), names, strict=False):
        path = _module(layout, name, f"kv_cache.modules[{number}]")
        for end in range(1, len(path) + 1):
            each = path[:end]
            taken.add(each)
            union = layout.modules[each].union
            if union is not None and (other := unions.setdefault(union, each)) != each:
                accepts = f"one of a union; {shown(other)!r} is taken"
                raise RequestError(f"kv_cache.modules[{number}]", name, accepts)
    return taken


def _module(layout: Layout, name: str, field: str) -> Path:
    wanted = tuple(name.split("/"))
    if wanted in layout.modules:
        return wanted
    found = [path for path in layout.modules if path[-len(wanted) :] == wanted]
    if len(found) == 1:
        return found[0]
    raise RequestError(field, name, f"one of {_listed(found or layout.modules)}")


def _listed(paths: Iterable[Path]) -> str:
    names = [shown(path) for path in paths]
    more = f", and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more if names else "no modules: this schema has none"


# -- arguments -------------------------------------------------------------------------------------


def _arguments(
    layout: Layout, arguments: Mapping[str, str], taken: set[Path]
) -> dict[tuple[Path, str], str]:
    found: dict[tuple[Path, str], str] = {}
    for name, text in arguments.items():
        slot = _slot(layout, name, taken)
        if found.setdefault((slot.module, slot.name), text) is not text:
            raise RequestError(f"kv_cache.arguments.{name}", text, "one text for a parameter")
    for slot in layout.slots:
        if slot.module in taken and (slot.module, slot.name) not in found:
            field = f"kv_cache.arguments.{shown((*slot.module, slot.name))}"
            raise RequestError(field, None, f"a text of at most {slot.length} tokens, or ''")
    return found


def _slot(layout: Layout, name: str, taken: set[Path]) -> Slot:
    *inner, last = name.split("/")
    wanted = tuple(inner)
    alike = [
        slot
        for slot in layout.slots
        if slot.name == last and slot.module[len(slot.module) - len(wanted) :] == wanted
    ]
    there = [slot for slot in alike if slot.module in taken]
    if len(there) == 1:
        return there[0]
    exact = [slot for slot in there if slot.module == wanted]
    if len(exact) == 1:
        return exact[0]
    paths = [(*slot.module, slot.name) for slot in there or layout.slots if slot.module in taken]
    accepts = f"one of {_listed(paths)}" if paths else "nothing: no parameter is taken"
    if alike and not there:
        accepts = f"a parameter of a module that is taken: {shown(alike[0].module)!r} is not"
    raise RequestError(f"kv_cache.arguments.{name}", name, accepts)


def _fitting(slot: Slot, given: Mapping[tuple[Path, str], str], cut: Cut) -> tuple[int, ...]:
    text = given[slot.module, slot.name]
    tokens = tuple(cut(text)) if text else ()
    if len(tokens) > slot.length:
        field = f"kv_cache.arguments.{shown((*slot.module, slot.name))}"
        accepts = f"at most {slot.length} tokens, which the schema reserves"
        raise RequestError(field, f"{len(tokens)} tokens: {text}", accepts)
    return tokens
