"""Every setting at once: after a reload a gateway is as one that was started with the new ones."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from enum import Enum
from functools import partial
from types import FunctionType, MethodType
from typing import Any, get_args

import msgspec
import pytest

from thinkonce import settings as known
from thinkonce.gateway.reload import FIXED, changes, settle
from thinkonce.gateway.server import GatewayServer
from thinkonce.settings.load import sections
from thinkonce.settings.read import Field, fields_of

PLAIN = bool | int | float | str | bytes | Enum | None
OTHER_TEXTS = {
    "cache.ttl": 7.0,
    "admin.token": "open sesame",
    "cache.ignore_fields": ["user"],
    "gateway.forward_headers": ["x-team"],
    "gateway.cors_origins": ["https://chat.example.com"],
}
# In force where this does not look: in what logs, in the store's file, in the administrator's
# desk, in which paths the fast lane knows, and only beside other settings.
ELSEWHERE = {
    "admin.token",
    "gateway.cors_credentials",
    "gateway.fast_lane",
    "log.level",
    "log.format",
    "store.max_bytes",
}
# Who a gateway is: chosen at random. And the limits it began with, which its edge has replaced.
OWN = ("._id", "._run", ".gateway_id", ".terms.limits")


def other(name: str, field: Field, value: Any) -> Any:
    """A value that the setting does not have."""
    if name in OTHER_TEXTS:
        return OTHER_TEXTS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if field.most is None or value + 1 <= field.most else value / 2
    if value is None:
        return 3
    return next(each for each in get_args(field.type) if each != value)


def changed(old: known.Settings, names: set[str]) -> known.Settings:
    found: dict[str, msgspec.Struct] = {}
    for section, kind in sections().items():
        values = {
            name: other(f"{section}.{name}", field, getattr(getattr(old, section), name))
            for name, field in fields_of(kind).items()
            if f"{section}.{name}" in names
        }
        found[section] = msgspec.structs.replace(getattr(old, section), **values)
    return msgspec.structs.replace(old, **found)


def told(root: object) -> dict[str, object]:
    """Path -> value of all plain values that `root` holds, itself or by what it holds."""
    found: dict[str, object] = {}
    seen, waiting = {id(root)}, deque([("", root)])
    while waiting:
        path, each = waiting.popleft()
        if isinstance(each, PLAIN):
            found[path] = each
        for name, part in parts_of(each):
            if f"{path}.{name}".endswith(OWN):
                continue
            if isinstance(part, PLAIN) or id(part) not in seen:
                seen.add(id(part))
                waiting.append((f"{path}.{name}", part))
    return found


def parts_of(each: object) -> Iterator[tuple[object, object]]:
    if isinstance(each, PLAIN | known.Settings):  # settings are in force by what was made of them
        return
    if isinstance(each, dict):
        yield from each.items()
    elif isinstance(each, list | tuple | set | frozenset):
        yield from enumerate(sorted(each, key=repr) if isinstance(each, set | frozenset) else each)
    elif isinstance(each, partial):
        yield from (("func", each.func), ("args", each.args), ("keywords", each.keywords))
    elif isinstance(each, FunctionType):
        yield from enumerate(cell.cell_contents for cell in each.__closure__ or ())
    elif isinstance(each, MethodType):
        yield "self", each.__self__
    elif type(each).__module__.startswith("thinkonce."):
        names = {name for kind in type(each).__mro__ for name in slots_of(kind)}
        for name in sorted(names | vars(each).keys() if hasattr(each, "__dict__") else names):
            if hasattr(each, name):
                yield name, getattr(each, name)


def slots_of(kind: type) -> tuple[str, ...]:
    declared = vars(kind).get("__slots__", ())
    named = (declared,) if isinstance(declared, str) else tuple(declared)
    return tuple(
        f"_{kind.__name__}{name}" if name.startswith("__") and not name.endswith("__") else name
        for name in named
    )


def server_of(settings: known.Settings) -> GatewayServer:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return GatewayServer(listener, settings, lambda line: None, None)


STORE = known.Store(url="memory://", secret="s" * 32)
UPSTREAMS = {"main": known.Upstream(urls=["http://127.0.0.1:9"])}
OLD = known.Settings(store=STORE, upstreams=UPSTREAMS)
NAMES = {f"{section}.{name}" for section, kind in sections().items() for name in fields_of(kind)}


async def test_a_reload_puts_in_force_what_it_does_not_name() -> None:
    new = changed(OLD, NAMES - FIXED)
    assert set(changes(OLD, settle(OLD, new))) == NAMES - FIXED
    reloaded, fresh = server_of(OLD), server_of(new)
    before = told(reloaded)
    reloaded.adopt(new)
    now, wanted = told(reloaded), told(fresh)
    assert len({path for path in wanted if before.get(path) != wanted[path]}) > 40
    assert {path: now.get(path) for path in wanted if now.get(path) != wanted[path]} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMES - FIXED - ELSEWHERE))
async def test_a_setting_shows_in_what_a_gateway_is_made_of(name: str) -> None:
    assert told(server_of(changed(OLD, {name}))) != told(server_of(OLD))
