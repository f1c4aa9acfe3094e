"""Where each text of a schema lies: depth first, with one running position.

    "You are.\\n"  "I am " [who: 8]  "doctor ..."  "Be brief."
    0            4        7        15           |
                                   "farmer ........"
                                   15             22           members of a union begin together
                                                  "Be brief."  and end with the longest

Positions that nothing stands at are holes: a prompt has no rows for them.

Leaves are encoded in scaffolds: one of all defaults, and one for each other member of a union.

    scaffold ()            | You are. | I am ........ | doctor ... | Be brief. |
    scaffold (farmer,)     | You are. | I am ........ | farmer ... | Be brief. |
    kept of it                                        |============|
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from struct import pack

from thinkonce.kv.prefix.blocks import packed

__all__ = ("Layout", "Leaf", "Path", "Place", "Scaffold", "Slot", "shown")

Path = tuple[str, ...]
"""Names of modules, each within the one before; () for what is in every prompt."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A text at the positions [start, start + tokens). `module`: the innermost it is in.

    `is_kept` false: its state is computed in each prompt.
    """

    start: int
    tokens: tuple[int, ...]
    module: Path
    is_kept: bool = True

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Slot:
    """Positions of an argument; `scaffold`: tokens that stand there while leaves are encoded."""

    name: str
    start: int
    length: int
    scaffold: tuple[int, ...]
    module: Path


@dataclass(frozen=True, slots=True)
class Place:
    """A module's positions. `union`: the number of the one it is a member of, if it is."""

    start: int
    end: int
    union: int | None = None
    is_default: bool = True


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What is encoded together, by position, up to the last that is kept of it. `leaves`: those
    that are, by the row that each begins at, with the context in their names.

    A leaf's state depends on what lies before it in its scaffold, tokens and positions, and on
    nothing else: that is its context. So a schema that changes at its end keeps its beginning.
    """

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    leaves: tuple[tuple[int, Leaf, str], ...]


@dataclass(frozen=True)
class Layout:
    """A schema as one model reads it; leaves and slots in the order of the document.

    `length`: the position behind all of it. Immutable.
    """

    name: str
    length: int
    leaves: tuple[Leaf, ...]
    slots: tuple[Slot, ...]
    modules: Mapping[Path, Place]

    def home(self, path: Path) -> Path:
        """The scaffold in which texts of that module are encoded: named by the innermost member
        of a union they are in that is no default; () is the one of all defaults.
        """
        for end in range(len(path), 0, -1):
            if not self.modules[path[:end]].is_default:
                return path[:end]
        return ()

    @cached_property
    def homes(self) -> tuple[Path, ...]:
        """All scaffolds, that of the defaults first."""
        others = [path for path, place in self.modules.items() if not place.is_default]
        return ((), *others)

    def is_in(self, path: Path, home: Path) -> bool:
        """Whether a module's texts are there in a scaffold."""
        return self._is_in(path, self._forced(home))

    def _forced(self, home: Path) -> Mapping[int | None, Path]:
        """By union, the members that are there since the scaffold is theirs."""
        return {self.modules[each].union: each for each in _within(home)}

    def _is_in(self, path: Path, forced: Mapping[int | None, Path]) -> bool:
        for each in _within(path):
            place = self.modules[each]
            if place.union is None:
                continue
            chosen = forced.get(place.union)
            if chosen != each and (chosen is not None or not place.is_default):
                return False
        return True

    @cached_property
    def scaffolds(self) -> Mapping[Path, Scaffold]:
        """By what they are named by, that of the defaults first."""
        return {home: self._scaffold(home) for home in self.homes}

    @cached_property
    def contexts(self) -> Mapping[Leaf, str]:
        """Of the leaves that are kept: see `Scaffold`."""
        each = (scaffold.leaves for scaffold in self.scaffolds.values())
        return {leaf: context for leaves in each for _, leaf, context in leaves}

    def lent(self, home: Path) -> list[tuple[int, Leaf]]:
        """Of a scaffold, the leaves that are kept of another one, by the row that each begins at,
        whose context is the one that they have there: so is their state.
        """
        size, contexts = len(self.scaffolds[home].tokens), self.contexts
        return [
            (row, part)
            for row, part, before in self._parts(home)
            if row < size
            and isinstance(part, Leaf)
            and part.is_kept
            and self.home(part.module) != home
            and contexts[part] == _context(before, part)
        ]

    def _scaffold(self, home: Path) -> Scaffold:
        tokens, positions = list[int](), list[int]()
        leaves = list[tuple[int, Leaf, str]]()
        for row, part, before in self._parts(home):
            if isinstance(part, Leaf) and part.is_kept and self.home(part.module) == home:
                leaves.append((row, part, _context(before, part)))
            ids = _ids(part)
            tokens += ids
            positions += range(part.start, part.start + len(ids))
        last = max((row + len(leaf.tokens) for row, leaf, _ in leaves), default=0)
        return Scaffold(tuple(tokens[:last]), tuple(positions[:last]), tuple(leaves))

    def _parts(self, home: Path) -> Iterator[tuple[int, Leaf | Slot, blake2b]]:
        """What stands in a scaffold, by row, each with what stands in front of it."""
        parts: list[Leaf | Slot] = [*self.leaves, *self.slots]
        forced = self._forced(home)
        there = [each for each in parts if self._is_in(each.module, forced)]
        row, before = 0, blake2b(digest_size=32)
        for part in sorted(there, key=lambda each: each.start):
            yield row, part, before
            ids = _ids(part)
            before.update(pack("<QQ", part.start, len(ids)) + packed(ids))
            row += len(ids)


def _ids(part: Leaf | Slot) -> tuple[int, ...]:
    return part.tokens if isinstance(part, Leaf) else part.scaffold


def _context(before: blake2b, leaf: Leaf) -> str:
    """Of a leaf that stands behind that."""
    context = before.copy()
    context.update(pack("<Q", leaf.start))
    return f"modules {context.hexdigest()}"


def shown(path: Path) -> str:
    """As requests name it."""
    return "/".join(path)


def _within(path: Path) -> Iterator[Path]:
    """A module and all that it is in, the outermost first."""
    return (path[:end] for end in range(1, len(path) + 1))
