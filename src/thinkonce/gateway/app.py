"""The gateway as an ASGI callable: a path table, limits, and one way for every error to leave.

POST chat/completions ... through the cache             with and without /v1
/healthz /readyz /metrics the gateway's own; and / and /openapi.json
/cache/...                who may, looks and empties
anything else             forwarded untouched, x-cache: BYPASS
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING

from thinkonce.engine.erring import send_error
from thinkonce.engine.http import (
    Call,
    ClientGone,
    HttpError,
    Receive,
    Scope,
    Send,
    check_length,
    read_body,
    send_ready,
    send_whole,
)
from thinkonce.engine.marks import JSON_TYPE
from thinkonce.engine.request_ids import RequestIds
from thinkonce.errors import RequestError, UpstreamError
from thinkonce.gateway.access_log import AccessLog, Told
from thinkonce.gateway.cors import Cors, asks_first, is_open_to_pages
from thinkonce.gateway.counts import Counts
from thinkonce.gateway.edge import bodies_of, guarded
from thinkonce.gateway.front_page import front_page
from thinkonce.gateway.metrics import exposition
from thinkonce.gateway.service import Ground, Service
from thinkonce.outcome import Match, Reason
from thinkonce.upstream.failure import Refused
from thinkonce.upstream.request import HOPS
from thinkonce.web.edge import Edge
from thinkonce.web.exchange import OVERSIZED, Limited, is_request_id
from thinkonce.web.log_lines import printable

if TYPE_CHECKING:
    from thinkonce.gateway.tracing import Tracing  # what it stands on is an extra

__all__ = ("Gateway",)

log = logging.getLogger("thinkonce")

CLIENT_GONE = 499  # nginx's number for it; in the log only

Handler = Callable[[Call], Awaitable[None]]


class Gateway:
    """Belongs to one event loop. `ready` False answers /readyz with 503."""

    def __init__(
        self, service: Service, ground: Ground, access_log: AccessLog, ids: RequestIds
    ) -> None:
        self.ready = True
        # What to say in place of an upstream's failure, by whoever knows more of it.
        self.excuse: Callable[[UpstreamError], HttpError | None] = lambda _: None
        self.tracing: Tracing | None = None
        self._metrics, self._team, self._access_log = ground.metrics, ground.team, access_log
        self._id = ground.gateway_id.encode()
        self.ids, self.clients, self._bodies = ids, service.clients, ground.metrics.bodies
        self.adopt(service)
        self._pages: dict[str, Handler] = {
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/metrics": self._numbers,
            "/": self._front,
            **dict.fromkeys(("/openapi.json", "/v1/openapi.json"), self._description),
            **dict.fromkeys(("/dashboard", "/v1/dashboard"), _not_built),
        }

    def adopt(self, service: Service) -> None:
        """Serve what comes from now on with it; what has begun ends as it began.

        But for requests whose bodies are on their way still: of a client that is gone, they end.
        """
        self.clients.followed_by(service.clients)
        self.cached, self.clients, self.cors = service.cached, service.clients, service.cors
        self.strict = service.strict  # who is served strictly, if anybody
        self._passing, self._admin = service.passing, service.admin
        self._describe = service.describe
        self._body_limit = service.settings.gateway.body_limit
        self._bodies.most = bodies_of(service.settings.gateway)
        self._roomy = self._bodies.most - self._body_limit

    def guard(self, edge: Edge) -> None:
        """Answer for what `edge` refuses, and count its connections."""
        guarded(edge, self.ids, self._access_log, self._metrics)
        edge.bodies = self._bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call = Call(scope, receive, send, perf_counter())
        call.bodies = self._bodies
        self._metrics.inflight += 1
        serving = None if self.tracing is None else self.tracing.begin(call)
        try:
            await self._serve(call)
        finally:
            self._metrics.inflight -= 1
            if call.held or call.room is not None:
                call.let_go()
            self._note(call)
            if serving is not None:
                known = call.path in self.cached or call.path in self._pages
                told = _told_of(call, self._metrics)
                serving.end(call, told, route=call.path if known else "")

    async def _serve(self, call: Call) -> None:
        try:
            if self.cors is not None and is_open_to_pages(call.path):
                call.marks = call.cors = self.cors.headers(call.head)
                if asks_first(call):
                    await self._preflight(call, self.cors)
                    return
            self._admit(call)
            endpoint = self.cached.get(call.path)
            if endpoint is None or call.method != "POST":
                await self._other(call)
                return
            self.clients.admit(call)
            # Else there is room for any body that may come, and reading it counts.
            if b"expect" in call.head or self._bodies.held > self._roomy:
                check_length(call, self._body_limit)
            if self.strict is not None and self.strict.concerns(call):
                await self.strict.answer(call, self._body_limit)
                return
            message = await call.receive()
            plain = endpoint.answer_inline(call, message)
            if plain is None:
                await endpoint(call, message)
                return
            await send_ready(call, *plain)
        except HttpError as error:
            if isinstance(error, Limited):
                self._metrics.limited(error.limit)
            await send_error(call, error)
        except RequestError as error:
            await send_error(call, HttpError.of(error))
        except UpstreamError as error:
            await self._send_upstream_error(call, error)
        except ClientGone:
            call.status = CLIENT_GONE
        except Exception:
            log.exception("request %s failed", call.id.decode("latin-1"))
            if call.status == 0:
                wrong = HttpError(500, "the gateway failed; its log says how", code="internal")
                await send_error(call, wrong)

    def _admit(self, call: Call) -> None:
        sent = call.head.get(b"x-request-id", b"")
        if sent and is_request_id(sent):
            call.id = sent
        else:
            call.id = next(self.ids)
        if oversized := call.scope["state"].get(OVERSIZED):
            raise oversized()
        if HOPS in call.head and self._id in call.head[HOPS]:
            raise HttpError(
                508,
                "this gateway is its own upstream: the request came back to it; check --upstream "
                "and [upstreams]",
                code="loop_detected",
            )

    async def _other(self, call: Call) -> None:
        page = self._pages.get(call.path)
        if page is not None:
            await page(call)
        elif call.path == "/cache" or call.path.startswith("/cache/"):
            await self._admin(call)
        else:
            await self._forward(call)

    async def _forward(self, call: Call) -> None:
        call.endpoint = "other"
        self.clients.admit(call)
        passing = self._passing
        raw = await read_body(call, self._body_limit, decompress=False)
        await passing.forward(call, raw, Reason.ENDPOINT)

    # -- pages ---------------------------------------------------------------------------

    async def _health(self, call: Call) -> None:
        await self._send_json(call, 200, b'{"status":"ok"}')

    async def _readiness(self, call: Call) -> None:
        if self.ready:
            await self._send_json(call, 200, b'{"status":"ready"}')
        else:
            await self._send_json(call, 503, b'{"status":"draining"}')

    async def _numbers(self, call: Call) -> None:
        if self.strict is not None:
            self.strict.guard(call)
        numbers = await self._team.numbers()
        saved = await self._metrics.keeper.sums(numbers.counted.savings)
        kind, page = exposition(numbers, saved, call.head.get(b"accept", b""))
        await send_whole(call, 200, [(b"content-type", kind)], page)

    async def _description(self, call: Call) -> None:
        await self._send_json(call, 200, self._describe())

    async def _front(self, call: Call) -> None:
        if call.method not in ("GET", "HEAD"):  # some servers' own endpoint: TGI's
            await self._forward(call)
            return
        headers, body = front_page(call.head.get(b"accept", b""))
        await send_whole(call, 200, [*headers, (b"x-request-id", call.id)], body)

    async def _preflight(self, call: Call, cors: Cors) -> None:
        call.id, call.marks = next(self.ids), ()
        headers = [*cors.preflight(call.head), (b"x-request-id", call.id)]
        call.status, call.answered = 204, True  # which has no length (RFC 9110, 8.6)
        await call.send({"type": "http.response.start", "status": 204, "headers": headers})
        await call.send({"type": "http.response.body", "body": b""})

    async def _send_json(self, call: Call, status: int, body: bytes) -> None:
        await send_whole(call, status, [JSON_TYPE, (b"x-request-id", call.id)], body)

    # -- errors --------------------------------------------------------------------------

    async def _send_upstream_error(self, call: Call, error: UpstreamError) -> None:
        if isinstance(error, Refused):
            wrong = HttpError(error.status, str(error), code=error.code)
        else:
            log.warning("request %s: %s", call.id.decode("latin-1"), error)
            status, code = getattr(error, "status", 502), getattr(error, "code", "upstream_error")
            wrong = self.excuse(error) or HttpError(status, str(error), code=code)
        await send_error(call, wrong)

    def _note(self, call: Call) -> None:
        seconds = perf_counter() - call.started
        if call.endpoint:
            model = self._metrics.model(call.model)
            outcome = call.outcome or "error"
            self._metrics.count((call.endpoint, model, outcome, call.match), seconds)
        if call.status >= 400:
            self._metrics.refused(call.status, by_us=call.refuses or call.status == CLIENT_GONE)
        if self._access_log.enabled:
            self._log(call, seconds)

    def _log(self, call: Call, seconds: float) -> None:
        path = call.scope["raw_path"].decode("latin-1")
        is_told = self._access_log.as_json or call.match in (Match.LEXICAL, Match.SEMANTIC)
        told = _told_of(call, self._metrics) if is_told else None
        self._access_log.write(
            call.id.decode("latin-1"),
            printable(f"{call.method} {path}"),
            call.status,
            call.outcome,
            call.reason,
            seconds,
            call.not_stored,
            told,
        )


def _told_of(call: Call, metrics: Counts) -> Told:
    model = metrics.model(call.model) if call.model else ""
    client = "" if call.client is None else call.client.name
    return Told(call.endpoint, model, call.whose, call.match, call.tier, call.tokens_saved, client)


async def _not_built(call: Call) -> None:
    raise HttpError(501, f"{call.path} is not built yet in this version", code="not_implemented")
