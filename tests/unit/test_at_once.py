"""Header lines for an answer that goes out in one write."""

from __future__ import annotations

import pytest

from thinkonce.web.at_once import lines_of


def test_headers_become_lines_in_their_order() -> None:
    headers = [(b"content-type", b"text/plain"), (b"x-a", b"\xe4 \tb")]
    assert lines_of(headers) == b"content-type: text/plain\r\nx-a: \xe4 \tb\r\n"


@pytest.mark.parametrize(
    "header",
    [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\x00"), (b"x", b"a\x7f"), (b"x\n", b"a")],
)
def test_a_control_character_leaves_it_to_the_usual_way(header: tuple[bytes, bytes]) -> None:
    assert lines_of([(b"x-a", b"b"), header]) is None


@pytest.mark.parametrize("name", [b"connection", b"Connection", b"transfer-encoding"])
def test_a_header_that_ends_or_cuts_the_connection_leaves_it_to_the_usual_way(name: bytes) -> None:
    assert lines_of([(name, b"close")]) is None
    assert lines_of([(b"x-a", b"b"), (name, b"close")]) is None
