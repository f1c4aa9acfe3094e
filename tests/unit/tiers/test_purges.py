"""Purge logs: numbered, bounded, honest about what they forgot."""

from hypothesis import given
from hypothesis import strategies as st

from thinkonce.entry import Entry, Meta
from thinkonce.selector import Purge, Selector
from thinkonce.tiers.purges import LocalPurges, PurgeWindow, concerned


def test_each_purge_takes_the_next_epoch_and_is_found_from_there_on():
    log = LocalPurges()
    first, removed = log.append(Selector(namespace="a"))
    second, _ = log.append(Selector(namespace="b"))
    assert (first.epoch, second.epoch, removed, log.epoch[0]) == (1, 2, 0, 2)
    assert log.since(0) == [first, second]
    assert log.since(1) == [second]
    assert log.since(2) == []


def test_the_epoch_is_the_same_object_for_ever():
    log = LocalPurges()
    epoch = log.epoch
    log.append(Selector())
    assert epoch[0] == 1


@given(st.lists(st.integers(1, 3), max_size=60), st.integers(1, 6))
def test_a_window_tells_exactly_what_came_later_or_that_it_forgot(steps, most):
    window, told, epoch = PurgeWindow(most=most), [], 0
    for step in steps:
        epoch += step  # numbers may be left out: other logs share the epoch
        purge = Purge(epoch, Selector())
        window.add(purge)
        told.append(purge)
        assert window.latest == epoch
    for asked in range(epoch + 2):
        later = window.since(asked)
        if later is None:
            assert asked < window.floor
        else:
            assert later == [purge for purge in told if purge.epoch > asked]
    known = window.since(window.floor)
    assert min(len(told), most) <= len(known) <= 2 * most


def test_unknown_purges_concern_everything_and_later_requests_are_spared():
    entry = Entry("k", 1, Meta(namespace="a"), epoch=3)
    assert concerned(entry, None)
    assert concerned(entry, [Purge(4, Selector(namespace="a"))])
    assert not concerned(entry, [Purge(3, Selector(namespace="a"))])
    assert not concerned(entry, [Purge(4, Selector(namespace="b"))])
    assert not concerned(entry, [])
