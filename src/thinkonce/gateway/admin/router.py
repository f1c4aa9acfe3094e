"""The path table of /cache: who may, and which handler answers."""

from __future__ import annotations

from thinkonce.engine.http import Call, HttpError
from thinkonce.errors import TierError
from thinkonce.gateway.admin import change, explain, look, move, preload
from thinkonce.gateway.admin.desk import Desk
from thinkonce.web.access import authorise

__all__ = ("ROUTES", "Admin")

_ROUTES = {
    ("GET", "stats"): look.stats,
    ("GET", "entries"): look.entries,
    ("GET", "export"): move.export,
    ("POST", "purge"): change.purge,
    ("POST", "limits"): change.limits,
    ("POST", "audits/reset"): change.reset,
    ("POST", "preload"): preload.preload,
    ("POST", "import"): move.import_,
    ("POST", "explain"): explain.explain,
}
# Below entries/KEY.
_OF_ENTRY = {
    ("GET", ""): look.entry,
    ("DELETE", ""): change.remove,
    ("POST", "feedback"): change.feedback,
}
# All of them: method, and path below /cache.
ROUTES = frozenset(
    {*_ROUTES, *((method, f"entries/KEY/{verb}".rstrip("/")) for method, verb in _OF_ENTRY)}
)


class Admin:
    """Belongs to one event loop. An empty `[admin] token`: only callers on this machine."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, call: Call) -> None:
        authorise(call, self._desk.settings.admin.token)
        try:
            await self._answer(call)
        except TierError as error:
            raise _not_reached(call, error) from error

    async def _answer(self, call: Call) -> None:
        path = call.path.removeprefix("/cache").strip("/")
        route = _ROUTES.get((call.method, path))
        if route is not None:
            await route(self._desk, call)
            return
        group, _, rest = path.partition("/")
        name, _, verb = rest.partition("/")
        about_one = _OF_ENTRY.get((call.method, verb))
        if group == "entries" and name and about_one is not None:
            await about_one(self._desk, call, name)
            return
        known = ", ".join(sorted(f"{method} {name}" for method, name in ROUTES))
        raise HttpError(404, f"there is no {call.method} {call.path}; there are {known}")


def _not_reached(call: Call, error: TierError) -> HttpError:
    """The store's part failed; of what was to go, memory's part is gone all the same."""
    what = f"{error} ({error.__cause__ or error.doing})"
    if call.method == "DELETE" or call.path.endswith(("/purge", "/feedback")):
        what += "; memory is purged, the store is not: try again once it can be written"
    wrong = HttpError(503, what, code="store_unavailable")
    wrong.headers = ((b"retry-after", b"10"),)
    return wrong
