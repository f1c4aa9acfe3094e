"""One canonical form for HTTP bodies: equal bytes exactly for equal requests.

What `parse_body` gives is encoded for the key as MessagePack with sorted keys (`key.py`): several
times faster than sorted JSON, because nothing is escaped. What those bytes could not tell apart
safely is *unkeyable*: forwarded, never cached.

    0, 0.0, -0.0, 1e2 = 100              one number however spelled
    1e400, 0.12345678901234567890        two texts could become one number: unkeyable
    ints beyond 64 bits                  unkeyable
    {"a": 1, "a": 2}                     the upstream may take the other one: unkeyable
    "\\ud800"                             JSON, but no text: unkeyable
    200 levels and more                  unkeyable, so that nothing ever recurses too deep
    NaN, a BOM, UTF-16, trailing bytes   not JSON: MalformedBody with line and column

Arguments of Python calls have their own form, in `arguments.py`.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, NoReturn

import msgspec

from thinkonce.errors import RequestError
from thinkonce.protocols.splice import Member, members

__all__ = (
    "MAX_DEPTH",
    "MAX_MEMBERS",
    "MalformedBody",
    "Parsed",
    "TooManyMembers",
    "parse_body",
)

MAX_DEPTH = 200
# Of the outermost object, whose members are cut out and put back one by one. An API has fifty.
MAX_MEMBERS = 1000
_EXACT = 2**53  # below, every integer has a double of its own
_DIGITS = 17  # significant digits a double can hold apart

_NESTS = frozenset({dict, list})
_MANTISSA_ZEROS = re.compile(r"^[-+]?0*\.?0*")
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*+"|(NaN|-?Infinity)', re.DOTALL)


class MalformedBody(RequestError):
    """The body is not JSON. `line` and `column` (both from 1) say where."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        super().__init__(
            "body", f"{problem} at line {line} column {column}", "a JSON object in UTF-8"
        )
        self.problem, self.line, self.column = problem, line, column


class TooManyMembers(RequestError):
    """The outermost object has more members than anybody means."""

    def __init__(self) -> None:
        super().__init__("body", f"more than {MAX_MEMBERS} members", f"at most {MAX_MEMBERS}")


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """A body, and why it has no canonical form ("" when it has one).

    An unkeyable body is forwarded as it came and never cached (`Reason.UNKEYABLE`). `body` is
    then what could be read of it, good for `model`, `stream` and controls only.
    """

    body: dict[str, Any]
    unkeyable: str = ""


def parse_body(raw: bytes) -> Parsed:
    """Raises MalformedBody for what is not JSON, RequestError for JSON that is no object,

    TooManyMembers.
    """
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _check_members(raw)
        return _parse_slowly(raw)
    if len(body) > MAX_MEMBERS:
        raise TooManyMembers
    return Parsed(body, _flaw(body) or _repeated_name(raw, body))


# -- numbers ---------------------------------------------------------------------------------


def _number(text: str) -> int | float:
    """A number with a fraction or an exponent; ValueError where two texts could become one."""
    value = float(text)
    if not -_EXACT < value < _EXACT:
        raise ValueError("not finite, or from 2^53 on with a fraction or an exponent")
    if len(text) > _DIGITS and _significant_digits(text) > _DIGITS:
        raise ValueError(f"more than {_DIGITS} significant digits")
    if value == 0 and _significant_digits(text) > 0:
        raise ValueError("too small for a double")
    whole = int(value)
    return whole if whole == value else value


def _significant_digits(text: str) -> int:
    mantissa = text.lower().partition("e")[0]
    return len(_MANTISSA_ZEROS.sub("", mantissa).replace(".", ""))


_decode = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode
_encode_json = msgspec.json.Encoder().encode


# -- what makes a body unkeyable -------------------------------------------------------------


def _flaw(body: dict[str, Any]) -> str:
    """Why the decoded body cannot be encoded safely. Level by level: never recurses."""
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        below = []
        for node in level:
            for item in node.values() if type(node) is dict else node:
                kind = type(item)
                if kind is str:
                    continue
                if kind in _NESTS:
                    below.append(item)
                elif kind is int and not -(2**63) <= item < 2**64:
                    return "an integer beyond 64 bits"
        if not below:
            return ""
        level = below
    return f"nested deeper than {MAX_DEPTH} levels"


def _repeated_name(raw: bytes, body: dict[str, Any]) -> str:
    """Why two names of one object are equal, "" if none are. Cheapest sufficient test first.

    Most clients send compact JSON: encoded again it is the same, so nothing was dropped. Else
    colons are counted: each name brings one, those inside strings stay (none is spelled \\u003a),
    so a difference means that a name was dropped. Only then is the text parsed with care.
    """
    again = _encode_json(body)
    if again == raw or (b"\\u003" not in raw and again.count(b":") == raw.count(b":")):
        return ""
    _check_members(raw)
    repeated: list[str] = []
    json.loads(raw, object_pairs_hook=lambda pairs: _note_repeated(pairs, repeated))
    return f"{repeated[0]!r} occurs twice in one object" if repeated else ""


def _check_members(raw: bytes) -> None:
    """Raises TooManyMembers, and counts no further. For what may repeat names."""
    if len(raw) <= MAX_MEMBERS:
        return
    found: list[Member] = []
    with suppress(ValueError):  # it may be no JSON
        found = members(raw, most=MAX_MEMBERS + 1)
    if len(found) > MAX_MEMBERS:
        raise TooManyMembers


def _note_repeated(pairs: list[tuple[str, Any]], repeated: list[str]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            repeated.append(name)
            return
        seen.add(name)


# -- bodies the fast parser refuses ----------------------------------------------------------


def _parse_slowly(raw: bytes) -> Parsed:
    """Either JSON all the same, and unkeyable, or an error that says where."""
    text = _text(raw)
    try:
        body = json.loads(text, parse_constant=_refuse_constant, parse_int=_any_int)
    except json.JSONDecodeError as error:
        raise MalformedBody(error.msg, error.lineno, error.colno) from None
    except _ConstantFound:
        raise _constant_error(text) from None
    except RecursionError:
        return Parsed(_shallow(raw), f"nested deeper than {MAX_DEPTH} levels")
    if not isinstance(body, dict):
        raise RequestError("body", _kind(body), "a JSON object")
    return Parsed(body, "a number or a text that has no exact form")


def _shallow(raw: bytes) -> dict[str, Any]:
    """The members that can be read one by one: where to send it, and the controls."""
    body: dict[str, Any] = {}
    with suppress(ValueError):
        for member in members(raw):
            with suppress(ValueError, RecursionError):
                body[member.name] = json.loads(raw[member.value : member.end])
    return body


def _text(raw: bytes) -> str:
    if not raw.strip():
        raise MalformedBody("nothing but white space" if raw else "no bytes", 1, 1)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise MalformedBody("a byte that is not UTF-8", line, column) from None


class _ConstantFound(Exception):
    pass


def _refuse_constant(_: str) -> NoReturn:
    raise _ConstantFound


def _constant_error(text: str) -> MalformedBody:
    found = next(match for match in _CONSTANT.finditer(text) if match[1])
    line = text.count("\n", 0, found.start()) + 1
    return MalformedBody(
        f"{found[1]} is not JSON", line, found.start() - text.rfind("\n", 0, found.start())
    )


def _any_int(digits: str) -> int | float:
    # Python refuses to convert thousands of digits; what is read here is never a key.
    return int(digits) if len(digits) < 100 else float(digits)


def _kind(value: object) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )
