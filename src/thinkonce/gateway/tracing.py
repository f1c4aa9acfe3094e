"""OpenTelemetry spans: one of each request, and one of each attempt to ask an upstream for it.

    traceparent ──► server span ──► (hit: nothing more)
                         └────────► client span ──► traceparent for the upstream

Names follow OpenTelemetry's semantic conventions for HTTP and for generative AI (gen_ai.*); what
they have no name for is thinkonce.*. No prompt, answer or credential is in a span. Sampling, limits
and the exporter are set by the standard OTEL_* variables. Importing this file needs the extra
`otel`; nothing imports it where tracing is off.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from opentelemetry import context as contexts
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from thinkonce.engine.http import Call
from thinkonce.gateway.access_log import Told
from thinkonce.outcome import Outcome
from thinkonce.protocols.registry import facts_of
from thinkonce.upstream.pools import Pool
from thinkonce.upstream.request import Request
from thinkonce.upstream.server import Server
from thinkonce.version import __version__
from thinkonce.web.log_lines import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thinkonce.engine.marks import Ready
    from thinkonce.tiers.tier import Key

__all__ = ("Attempt", "Tracing", "open_tracing")

# A client chooses the model's name: of what goes into a span, so many characters.
MAX_NAME = 128
FLUSH_MILLISECONDS = 5_000

_propagator = TraceContextTextMapPropagator()


def open_tracing() -> Tracing:
    """Spans go in batches to the OTLP receiver that the environment names."""
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    about = {"service.version": __version__} | ({} if named else {"service.name": "thinkonce"})
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class Tracing:
    """Belongs to one event loop. `close` waits for the exporter: call it in a thread."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("thinkonce", __version__)

    def begin(self, call: Call) -> Serving:
        """`call` is being answered; what it asks of others from now on belongs to it."""
        names = {name: call.head.get(name.encode(), b"") for name in _propagator.fields}
        carried = {name: value.decode("latin-1") for name, value in names.items() if value}
        parent = _propagator.extract(carried, contexts.Context())
        span = self._tracer.start_span(
            f"{call.method} request", parent, SpanKind.SERVER, _request_of(call.method, call.path)
        )
        return Serving(span, contexts.attach(set_span_in_context(span)))

    def hit(self, told: Told, key: Key | Ready | None, path: str, ids: str, seconds: float) -> None:
        """A request that the fast lane has just answered; it came without a `traceparent`."""
        now = time.time_ns()
        span = self._tracer.start_span(
            f"POST {path}",
            contexts.Context(),
            SpanKind.SERVER,
            _request_of("POST", path),
            start_time=now - int(seconds * 1e9),
        )
        if span.is_recording():
            span.set_attributes(_facts(told, key, ids, 200, Outcome.HIT))
        span.end(now)

    def attempt(self, pool: Pool, server: Server, request: Request) -> Attempt:
        """A client span in the context of whoever asks, and the headers that continue it."""
        operation = facts_of(request.path).operation
        span = self._tracer.start_span(
            operation or f"{request.method} upstream", kind=SpanKind.CLIENT
        )
        if span.is_recording():
            span.set_attributes(_asked_of(pool, server, request, operation))
        headers: dict[str, str] = {}
        _propagator.inject(headers, set_span_in_context(span))
        return Attempt(span, headers)

    def close(self) -> None:
        """What is ready is sent, within some seconds."""
        self._provider.force_flush(FLUSH_MILLISECONDS)
        self._provider.shutdown()


class Serving:
    """The server span of one request."""

    def __init__(self, span: Span, token: Any) -> None:
        self._span, self._token = span, token

    def end(self, call: Call, told: Told, *, route: str) -> None:
        """`route`: the path if the gateway knows it, since clients choose the others."""
        contexts.detach(self._token)
        span = self._span
        if span.is_recording():
            span.update_name(f"{call.method} {route}" if route else call.method)
            ids = call.id.decode("latin-1")
            span.set_attributes(_facts(told, call.key, ids, call.status, call.outcome))
            more = {
                "http.route": route,
                "gen_ai.request.model": printable(call.model[:MAX_NAME]),
                "thinkonce.reason": str(call.reason),
                "thinkonce.not_stored": str(call.not_stored),
            }
            span.set_attributes({name: value for name, value in more.items() if value})
            if call.status >= 500 or not call.status:
                span.set_attribute("error.type", str(call.status or "aborted"))
                span.set_status(Status(StatusCode.ERROR))
        span.end()


class Attempt:
    """The client span of one attempt; `headers` continue the trace at the upstream."""

    def __init__(self, span: Span, headers: Mapping[str, str]) -> None:
        self._span, self.headers = span, headers

    def ended(self, status: int, error: BaseException | None = None) -> None:
        """Read to its end, or given up; `status` 0 without an answer."""
        span = self._span
        if status:
            span.set_attribute("http.response.status_code", status)
        if error is not None or status >= 400:
            kind = str(status) if error is None else type(error).__name__
            span.set_attribute("error.type", kind)
            span.set_status(Status(StatusCode.ERROR))
        span.end()


def _request_of(method: str, path: str) -> dict[str, str]:
    return {"http.request.method": method, "url.path": printable(path[:MAX_NAME])}


def _facts(
    told: Told, key: Key | Ready | None, ids: str, status: int, outcome: str
) -> dict[str, str | int]:
    """What a request was and what became of it; without what is not known."""
    facts: dict[str, str | int] = {
        "gen_ai.operation.name": facts_of(told.endpoint).operation,
        "http.response.status_code": status,
        "thinkonce.request_id": ids,
        "thinkonce.endpoint": told.endpoint,
        "thinkonce.outcome": str(outcome),
        "thinkonce.match": str(told.match),
        "thinkonce.tier": told.tier,
        "thinkonce.key": "" if key is None else key.digest.hex(),
        "thinkonce.tokens_saved": told.tokens_saved,
    }
    return {name: value for name, value in facts.items() if value not in ("", 0)}


def _asked_of(pool: Pool, server: Server, request: Request, operation: str) -> dict[str, str | int]:
    # Of whose API it is: the pool's dialect only says how the gateway's own key is sent.
    declared = pool.declared.dialect
    provider = declared if declared == "anthropic" else facts_of(request.path).provider
    host, port = server.base.address
    return {
        "http.request.method": request.method,
        "server.address": host,
        "server.port": port,
        "thinkonce.pool": pool.name,
        **(
            {"gen_ai.operation.name": operation, "gen_ai.provider.name": provider}
            if operation
            else {}
        ),
    }
