"""Server-sent events, cut from bytes that arrive in any pieces.

Line ends may be LF, CRLF or CR; data may span lines; borders may fall anywhere, also inside a
character. Source: the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import msgspec

__all__ = ("Event",)


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event, or a comment (`data` is None). `raw` is its text with LF ends, blank line too.

    A piece of an event too large to hold has `data` None and no blank line at its end.
    """

    raw: bytes
    data: bytes | None = None
    name: str = ""
