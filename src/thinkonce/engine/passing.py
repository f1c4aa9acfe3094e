"""What is forwarded without asking the cache: untouched, piece by piece as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Container
from typing import TYPE_CHECKING, Protocol

import msgspec

from thinkonce.engine.asking import version_free
from thinkonce.engine.fetch import MAX_ANSWER, MAX_ERROR, is_event_stream, upstream_request
from thinkonce.engine.http import Call, HttpError, send_pieces, send_whole
from thinkonce.engine.marks import JSON_TYPE, miss_headers, passed_on
from thinkonce.engine.models import list_models
from thinkonce.engine.well_formed import check_values
from thinkonce.outcome import Outcome, Reason
from thinkonce.protocols.registry import BELOW, SPEECHES
from thinkonce.protocols.splice import members
from thinkonce.request.canonical import MAX_MEMBERS
from thinkonce.request.controls import strip_controls
from thinkonce.upstream.exchange import Exchange
from thinkonce.upstream.failure import Broken, Header, Refused
from thinkonce.upstream.pools import Pool, Pools
from thinkonce.upstream.request import HOPS, Request, Sender

if TYPE_CHECKING:
    from thinkonce.engine.client_rules import ClientRules

__all__ = ("Dress", "Passing")


class Dress(Protocol):
    """Puts marks into a 200 on its way through."""

    def whole(self, body: bytes) -> bytes: ...

    def stream(self, call: Call, exchange: Exchange) -> AsyncIterator[bytes]: ...


class Passing:
    """Belongs to one event loop. `forward_headers`: names sent on besides the known ones."""

    def __init__(self, client: Sender, pools: Pools, forward_headers: Container[bytes]) -> None:
        self._client, self._pools, self._extra = client, pools, forward_headers

    async def forward(
        self, call: Call, raw: bytes, reason: Reason, *, decoded: bool = False
    ) -> None:
        """Send the request to the pool its model (if any) belongs to: as it came, or `decoded`,

        its body unpacked already and still with the controls that are meant for us alone.
        """
        call.outcome, call.reason = Outcome.BYPASS, reason
        model = self._model(call, raw)
        pool = self._pools.for_model(model) or self._pools.all[0]
        path = version_free(call.scope["raw_path"].decode("latin-1"))
        taken = call.taken(self._extra)
        if call.client is not None:
            _check_path(call, call.client, pool, path, model)
            taken = msgspec.structs.replace(taken, credential=())
        _refuse_dots(call)
        if pool.declared.engine_secret:
            _check_engine(call, path)
        names = _PASSED if decoded else (b"content-encoding", *_PASSED)
        raw = _uncontrolled(raw) if decoded else raw
        if call.method in _BODYLESS:
            raw = b""
        more = [*hops(call)]
        more += [(name, call.head[name]) for name in names if name in call.head]
        request = upstream_request(
            call.method,
            path,
            call.query,
            taken,
            raw,
            tuple(more),
            tenant="" if call.client is None else call.client.tenant,
        )
        if call.method not in _HARMLESS and request.path not in CALLS:
            request = msgspec.structs.replace(request, repeatable=False)
        head = miss_headers(Outcome.BYPASS, reason, "")
        head.append((b"x-request-id", call.id))
        if call.method == "GET" and request.path == "models" and len(self._pools.all) > 1:
            await self._list_models(call, request, head)
        else:
            await self.send(call, pool, request, head)

    async def _list_models(self, call: Call, request: Request, head: list[Header]) -> None:
        try:
            body = await list_models(self._client, self._pools, request)
        except Refused as error:
            await send_refusal(call, error, head)
            return
        await send_whole(call, 200, [JSON_TYPE, *head], body)

    async def send(
        self,
        call: Call,
        pool: Pool,
        request: Request,
        head: list[Header],
        dress: Dress | None = None,
        *,
        refused: Callable[[int], bool] | None = None,
    ) -> None:
        """Send `request` and pass its answer on with the headers `head`; a 200 gets `dress`.

        `refused`: another pool can be asked, so an answer of such a status is raised, as Refused.
        """
        exchange = await self._client.send(pool, request, raw=dress is None, spare=bool(refused))
        try:
            if refused is not None and refused(exchange.status):
                body = await exchange.read_all(MAX_ERROR)
                raise Refused(exchange.status, exchange.headers, body or b"")
            headers = answer_headers(exchange.headers, head)
            if dress is None or exchange.status != 200 or exchange.opaque:
                await send_pieces(call, exchange.status, headers, _pieces(exchange))
            elif is_event_stream(exchange.content_type):
                await send_pieces(call, 200, headers, dress.stream(call, exchange))
            else:
                whole = await exchange.read_all(MAX_ANSWER)
                if whole is None:
                    raise Broken(f"the upstream's answer is larger than {MAX_ANSWER} bytes")
                await send_whole(call, 200, headers, dress.whole(whole))
        finally:
            exchange.close()

    def _model(self, call: Call, raw: bytes) -> str:
        path = version_free(call.path)
        if path.startswith("models/"):
            return path.removeprefix("models/")
        limited = call.client is not None and call.client.is_limited
        if (len(self._pools.all) < 2 and not limited) or b'"model"' not in raw:
            return ""
        if limited:
            check_values(raw)
        try:
            found = members(raw, most=MAX_MEMBERS) if limited else []
            model, names = _peek(raw).model, [each.name for each in found]
        except (msgspec.DecodeError, ValueError, RecursionError):  # a body may be anything
            return ""
        if call.client is not None:
            call.client.check_body(dict.fromkeys(names))
        # An upstream could take another one than is looked at here.
        unsure = limited and (names.count("model") != 1 or len(names) == MAX_MEMBERS)
        return "" if unsure else model


def _check_path(call: Call, client: ClientRules, pool: Pool, path: str, model: str) -> None:
    """Raises HttpError 403 for what a known client may not use."""
    odd = ".." in path or "%" in path or "\\" in path  # could be read as another path
    listed = path == "models" or (path.startswith("models/") and not odd)
    if call.method == "POST" and path in CALLS:
        client.check_model(model)
    elif call.method == "GET" and listed:
        if path != "models":
            client.check_model(model)
    elif client.is_limited:  # where no model is looked for, any could be named
        raise _not_for(call, "whose models are limited")
    elif pool.credential and not (
        pool.declared.account_paths or (call.method == "POST" and path in MORE_CALLS)
    ):
        raise _not_for(call, "of a gateway with its own key, which all share; see account_paths")


def _refuse_dots(call: Call) -> None:
    """An upstream that resolves `..` would leave the path of its base URL. Raises HttpError 400.

    The path is looked at with its percent signs decoded (RFC 3986, 3.3 and 6.2.2.3).
    """
    if "." in call.path and any(
        segment.partition(";")[0] in (".", "..")
        for segment in call.path.replace("\\", "/").split("/")
    ):
        raise HttpError(
            400,
            f"path: {call.path!r:.80} has a segment that is . or ..; ask for the path it leads to",
            code="dot_segment",
        )


def _check_engine(call: Call, path: str) -> None:
    """Our own engine does what we ask, and not all that it can do is a client's to ask.

    Raises HttpError 404. What is compared is the path as it came: any other spelling is none.
    """
    if path not in CALLS and path.partition("/")[0] != "models":
        message = f"{call.path!r:.80} is no path of the model behind this gateway"
        raise HttpError(404, message, code="unknown_url")


def _not_for(call: Call, whom: str) -> HttpError:
    return HttpError(
        403,
        f"{call.method} {call.path!r:.80} is not open to a client {whom}",
        code="path_not_allowed",
    )


class _Named(msgspec.Struct):
    model: str = ""


_peek = msgspec.json.Decoder(_Named).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

# Asking these twice costs time and nothing else.
CALLS = frozenset({*SPEECHES, *BELOW, "moderations", "rerank"})
# These ask a model too.
MORE_CALLS = frozenset(
    {
        "audio/speech", "audio/transcriptions", "audio/translations", "images/edits",
        "images/generations",
    }
)  # fmt: skip
_HARMLESS = ("GET", "HEAD", "OPTIONS")
# A body says nothing in these (RFC 9110, 9.3.1), and a server that does not look for it takes it
# for the next request: one that nobody here has checked.
_BODYLESS = ("GET", "HEAD")

# Headers sent on as they came, apart from the known ones.
_PASSED = (b"accept-encoding", b"range", b"if-none-match")


def _uncontrolled(raw: bytes) -> bytes:
    try:
        return strip_controls(raw, _members(raw))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return raw


def hops(call: Call) -> list[Header]:
    """The gateways a request has come through, for the next one to see."""
    return [header for header in call.headers if header[0] == HOPS]


def answer_headers(upstream: tuple[Header, ...], head: list[Header]) -> list[Header]:
    """The upstream's headers, its content type, and our marks."""
    kind = [header for header in upstream if header[0] == b"content-type"]
    return [*kind, *head, *passed_on(upstream)]


async def send_refusal(call: Call, error: Refused, head: list[Header]) -> None:
    """An upstream's own error: its status, body and headers unchanged, and our marks."""
    await send_whole(call, error.status, answer_headers(error.headers, head), error.body)


async def _pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    while piece := await exchange.read():
        yield piece
