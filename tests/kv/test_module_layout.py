"""Where a schema's texts lie, against a model too simple to be wrong; and what a prompt may say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkonce.errors import RequestError
from thinkonce.kv.modules.laying import Frame, laid_out
from thinkonce.kv.modules.layout import Layout, Path, shown
from thinkonce.kv.modules.prompt import put_together
from thinkonce.kv.modules.schema import Child, Message, Module, Parameter, Schema, Union, check

UNKNOWN = 0


def cut(text: str) -> list[int]:
    """A token a character."""
    return [ord(character) for character in text]


# -- random schemas ----------------------------------------------------------------------------

texts = st.text("abcdefgh", min_size=1, max_size=6)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    names = iter(f"m{number}" for number in range(1000))

    def module(depth: int) -> Module:
        return Module(
            next(names), tuple(children(depth + 1, within=True)), cache=draw(st.booleans())
        )

    def children(depth: int, *, within: bool) -> Iterator[Child]:
        kinds = ["text", "text", *(["parameter"] if within else [])]
        kinds += ["module", "union"] if depth < 3 else []
        for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
            if kind == "text":
                yield draw(texts)
            elif kind == "parameter":
                yield Parameter(
                    next(names), draw(st.integers(1, 5)), draw(st.sampled_from(["", "x"]))
                )
            elif kind == "module":
                yield module(depth)
            else:
                members = tuple(module(depth) for _ in range(draw(st.integers(1, 3))))
                scaffold = draw(st.sampled_from(["", *(member.name for member in members)]))
                yield Union(members, scaffold)

    return Schema("s", ("begin", *children(0, within=False)))


def length(child: Child) -> int:
    """The simple model: a child's length depends on nothing but itself."""
    match child:
        case str():
            return len(child)
        case Parameter():
            return child.length
        case Union():
            return max(length(member) for member in child.members)
        case Module():
            return sum(map(length, child.children))
    raise AssertionError(child)


def texts_at(child: Child, start: int, path: Path) -> Iterator[tuple[int, str, Path]]:
    """Of a child that begins there: each text with its first position."""
    if isinstance(child, str):
        yield start, child, path
    elif isinstance(child, Union):
        for member in child.members:
            yield from texts_at(member, start, path)
    elif isinstance(child, Module):
        for number, inner in enumerate(child.children):
            before = sum(map(length, child.children[:number]))
            yield from texts_at(inner, start + before, (*path, child.name))


@given(schemas())
@settings(max_examples=25)
def test_every_text_lies_where_the_lengths_before_it_put_it(schema: Schema) -> None:
    check(schema)
    layout = laid_out(schema, cut, UNKNOWN)
    root = Module("root", schema.children)
    expected = [(start, tuple(cut(text)), path[1:]) for start, text, path in texts_at(root, 0, ())]
    assert [(leaf.start, leaf.tokens, leaf.module) for leaf in layout.leaves] == expected
    assert layout.length == length(root)


def chosen_ways(layout: Layout) -> Iterator[set[Path]]:
    """Every scaffold there is, by trying all choices: one member of each union."""
    unions: dict[int, list[Path]] = {}
    for path, place in layout.modules.items():
        if place.union is not None:
            unions.setdefault(place.union, []).append(path)
    for choice in product(*unions.values()):
        yield set(choice)


@given(schemas())
@settings(max_examples=25)
def test_a_scaffold_is_the_choice_with_fewest_members_that_are_no_defaults(schema: Schema) -> None:
    layout = laid_out(schema, cut, UNKNOWN)
    members = {path for path, place in layout.modules.items() if place.union is not None}

    def within(path: Path) -> set[Path]:
        return {path[:end] for end in range(1, len(path) + 1)} & members

    for home, scaffold in layout.scaffolds.items():
        wanted = within(home)
        fitting = (choice for choice in chosen_ways(layout) if wanted <= choice)
        best = min(
            fitting, key=lambda chosen: sum(not layout.modules[p].is_default for p in chosen)
        )
        there = [leaf for leaf in layout.leaves if within(leaf.module) <= best]
        known = dict(zip(scaffold.positions, scaffold.tokens, strict=True))
        end = max((leaf.end for _, leaf, _ in scaffold.leaves), default=0)
        there = [leaf for leaf in there if leaf.end <= end]
        for leaf in there:
            assert [known[leaf.start + n] for n in range(len(leaf.tokens))] == list(leaf.tokens)
        slots = [s for s in layout.slots if within(s.module) <= best and s.start < end]
        sizes = [*(len(leaf.tokens) for leaf in there), *(slot.length for slot in slots)]
        assert len(scaffold.tokens) == sum(sizes), "nothing else is in it"
        assert list(scaffold.positions) == sorted(set(scaffold.positions))


@given(schemas())
@settings(max_examples=25)
def test_every_kept_text_has_one_scaffold_of_its_own(schema: Schema) -> None:
    layout = laid_out(schema, cut, UNKNOWN)
    kept = [leaf for each in layout.scaffolds.values() for _, leaf, _ in each.leaves]
    assert sorted(kept, key=repr) == sorted((x for x in layout.leaves if x.is_kept), key=repr)
    seen: dict[str, dict[int, int]] = {}
    for scaffold in layout.scaffolds.values():
        for row, leaf, context in scaffold.leaves:
            before = dict(zip(scaffold.positions[:row], scaffold.tokens[:row], strict=True))
            assert seen.setdefault(context, before) == before, "equal names, equal state"
            assert layout.contexts[leaf] == context


@given(schemas(), st.data())
@settings(max_examples=25)
def test_a_prompt_has_the_texts_of_what_it_takes_at_their_positions(
    schema: Schema, data: st.DataObject
) -> None:
    layout = laid_out(schema, cut, UNKNOWN)
    names = (
        data.draw(st.lists(st.sampled_from(sorted(layout.modules)), max_size=4))
        if layout.modules
        else []
    )
    taken = {(), *(path[:end] for path in names for end in range(1, len(path) + 1))}
    at_once = [path for path in taken if path and layout.modules[path].union is not None]
    clash = len({layout.modules[path].union for path in at_once}) < len(at_once)
    slots = [slot for slot in layout.slots if slot.module in taken]
    given_ = {shown((*slot.module, slot.name)): "x" * (slot.length - 1) for slot in slots}

    def put() -> Sequence[int]:
        return put_together(layout, [shown(path) for path in names], given_, cut("end"), cut)

    if clash:
        with pytest.raises(RequestError, match="one of a union"):
            put()
        return
    prompt = put_together(layout, [shown(path) for path in names], given_, cut("end"), cut)
    expected = {
        leaf.start + n: token
        for leaf in layout.leaves
        if leaf.module in taken
        for n, token in enumerate(leaf.tokens)
    }
    expected |= {slot.start + n: ord("x") for slot in slots for n in range(slot.length - 1)}
    expected |= {layout.length + n: token for n, token in enumerate(cut("end"))}
    assert dict(zip(prompt.positions, prompt, strict=True)) == expected
    assert prompt.positions == sorted(expected)
    assert prompt.end == layout.length + 3


# -- what a prompt may say -----------------------------------------------------------------------

TRIP = Schema(
    "trip",
    (
        "You plan.",
        Module("plan", ("For ", Parameter("days", 4), " in ", Parameter("where", 6), ".")),
        Union((Module("sea", ("waves", Module("boat", ("sails",)))), Module("hills", ("h",)))),
        Module("other", (Module("boat", ("oars", Parameter("days", 2))),)),
    ),
)


def prompt_of(modules: Sequence[str], **arguments: str) -> str:
    layout = laid_out(TRIP, cut, UNKNOWN)
    return "".join(map(chr, put_together(layout, modules, arguments, cut("?"), cut)))


def test_arguments_stand_in_their_places() -> None:
    assert prompt_of(["plan"], days="3", where="Rome") == "You plan.For 3 in Rome.?"


def test_an_argument_may_be_left_out_and_not_forgotten() -> None:
    assert prompt_of(["plan"], days="", where="Rome") == "You plan.For  in Rome.?"
    with pytest.raises(RequestError, match=r"kv_cache.arguments.plan/days: .* at most 4 tokens"):
        prompt_of(["plan"], where="Rome")


def test_an_argument_too_long_names_its_parameter_its_length_and_what_it_got() -> None:
    with pytest.raises(RequestError, match=r"arguments.plan/days: got '5 tokens.*at most 4 tokens"):
        prompt_of(["plan"], days="three", where="Rome")


def test_a_module_in_another_takes_that_too() -> None:
    assert prompt_of(["sea/boat"]) == "You plan.wavessails?"


@pytest.mark.parametrize(
    ("modules", "arguments", "said"),
    [
        (["pln"], {}, "plan, sea, sea/boat, hills, other, other/boat"),
        (["boat"], {}, "sea/boat, other/boat"),
        (["sea", "hills"], {}, "'sea' is taken"),
        (["sea/boat", "hills"], {}, "'sea' is taken"),
        (["sea"], {"days": "1"}, "module that is taken: 'plan' is not"),
        (["sea"], {"day": "1"}, "nothing: no parameter is taken"),
        (["plan"], {"day": "1"}, "one of plan/days, plan/where"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(
    modules: list[str], arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(RequestError) as refused:
        prompt_of(modules, **arguments)
    assert said in str(refused.value)


def test_frames_of_messages_are_texts_of_the_module_that_the_message_is_in() -> None:
    schema = Schema(
        "s",
        (Message("system", ("a", Module("m", ("b",)))), Module("n", (Message("user", ("c",)),))),
    )
    layout = laid_out(
        schema, cut, UNKNOWN, {0: Frame(cut("<"), cut(">")), 1: Frame(cut("["), cut("]"))}
    )
    assert "".join(map(chr, put_together(layout, ["n"], {}, cut("?"), cut))) == "<a>[c]?"
    assert "".join(map(chr, put_together(layout, ["m"], {}, cut("?"), cut))) == "<ab>?"


def test_a_text_keeps_its_name_when_the_schema_changes_behind_it() -> None:
    before, after = (laid_out(Schema("s", ("a", "b", last)), cut, UNKNOWN) for last in ("c", "d"))
    changed = laid_out(Schema("s", ("x", "b", "c")), cut, UNKNOWN)
    names = [[each.contexts[leaf] for leaf in each.leaves] for each in (before, after, changed)]
    assert names[0][:2] == names[1][:2]
    assert names[0][2] == names[1][2], "a leaf's own tokens are in its blocks, not its context"
    assert names[0][1] != names[2][1]
