"""Frames come out as they went in, wherever the stream was cut, and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.host.frames import (
    HEAD,
    MAX_FRAME_BYTES,
    Frame,
    Kind,
    Unframer,
    frame,
    hello,
    said_hello,
)

frames = st.builds(Frame, st.sampled_from(Kind), st.binary(max_size=50))


@given(st.lists(frames, max_size=8), st.data())
def test_any_cut_gives_the_same_frames(sent, data):
    stream = b"".join(frame(one.kind, one.payload) for one in sent)
    unframer, heard = Unframer(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        heard += unframer.feed(stream[:cut])
        stream = stream[cut:]
    assert heard == sent


@given(st.binary(max_size=200))
def test_noise_is_frames_or_a_value_error_and_never_grows_without_bound(noise):
    try:
        for heard in Unframer().feed(noise):
            assert len(heard.payload) <= len(noise)
    except ValueError:
        pass


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_a_length_that_is_never_sent_is_refused_before_it_is_waited_for(length):
    with pytest.raises(ValueError, match="are sent"):
        list(Unframer().feed(HEAD.pack(length, Kind.CHUNK)))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="99"):
        list(Unframer().feed(HEAD.pack(1, 99)))


def test_what_would_be_refused_is_not_sent():
    with pytest.raises(ValueError, match="at most"):
        frame(Kind.LANDED, bytes(MAX_FRAME_BYTES))


def test_a_greeting_names_the_call():
    (heard,) = Unframer().feed(hello(b"d" * 32))
    assert said_hello(heard) == b"d" * 32


@pytest.mark.parametrize("first", [Frame(Kind.CHUNK, b"\x01"), Frame(Kind.HELLO, b"\x01abc")])
def test_another_greeting_is_refused(first):
    with pytest.raises(ValueError, match="greeting of version 2"):
        said_hello(first)
