"""OpenTelemetry spans: what is in them, whose children they are, and where they go."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from yarl import URL

from gateway.conftest import CHAT, Running, Stage, until
from gateway.test_fallback import chain
from gateway.test_servers import saying
from gateway.upstream import Out, Seen, Upstream, broken_off, chunks, completion, once
from thinkonce.gateway.tracing import Tracing

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(params=["lane", "asgi"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield provider
    provider.shutdown()


@pytest.fixture
def traced(gateway: Running, provider: TracerProvider) -> Running:
    gateway.assembly.trace(Tracing(provider))
    return gateway


def of_kind(spans: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.kind is kind]


async def test_a_miss_is_a_server_span_with_a_client_span_and_a_hit_a_server_span_alone(
    traced: Running, spans: InMemorySpanExporter
) -> None:
    for _ in range(3):
        got = await traced.chat()
    await until(lambda: len(spans.get_finished_spans()) == 4)
    (client,) = of_kind(spans, SpanKind.CLIENT)
    miss, *hits = of_kind(spans, SpanKind.SERVER)
    assert client.parent is not None
    assert client.parent.span_id == miss.context.span_id
    assert client.context.trace_id == miss.context.trace_id
    assert (client.name, miss.name) == ("chat", f"POST {CHAT}")
    assert client.attributes is not None
    assert client.attributes["gen_ai.provider.name"] == "openai"
    assert client.attributes["http.response.status_code"] == 200
    assert miss.attributes is not None
    assert miss.attributes["thinkonce.outcome"] == "miss"
    assert miss.attributes["thinkonce.reason"] == "new"
    for hit in hits:
        assert hit.name == f"POST {CHAT}"
        assert hit.parent is None
        found = dict(hit.attributes or {})
        assert found.pop("thinkonce.request_id")
        found.pop("gen_ai.request.model", None)  # in ASGI it is the client's word for it
        found.pop("http.route", None)
        assert found == {
            "gen_ai.operation.name": "chat",
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "url.path": CHAT,
            "thinkonce.endpoint": "chat/completions",
            "thinkonce.outcome": "hit",
            "thinkonce.match": "exact",
            "thinkonce.tier": "memory",
            "thinkonce.key": got.headers["x-cache-key"],
            "thinkonce.tokens_saved": 18,
        }


async def test_a_trace_is_continued_to_the_upstream_and_changes_no_key(
    traced: Running, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    await traced.chat(headers={"traceparent": PARENT, "tracestate": "a=b"})
    sent = upstream.seen[0].headers
    version, trace, span, flags = sent["traceparent"].split("-")
    assert (version, trace, flags) == ("00", PARENT.split("-")[1], "01")
    assert sent["tracestate"] == "a=b"
    await until(lambda: len(spans.get_finished_spans()) == 2)
    (client,) = of_kind(spans, SpanKind.CLIENT)
    assert f"{client.context.span_id:016x}" == span
    other = PARENT.replace("4bf9", "5bf9")
    assert (await traced.chat(headers={"traceparent": other})).cache == "HIT"
    await until(lambda: len(of_kind(spans, SpanKind.SERVER)) == 2)
    first, second = of_kind(spans, SpanKind.SERVER)
    assert first.parent is not None
    assert second.parent is not None
    assert f"{first.parent.trace_id:032x}" == trace
    assert f"{second.parent.trace_id:032x}" == other.split("-")[1]


@pytest.mark.parametrize("sent", ["", "rubbish", "00-0-0-0", PARENT[:-3]])
async def test_a_traceparent_that_is_none_begins_a_trace(
    traced: Running, spans: InMemorySpanExporter, sent: str
) -> None:
    assert (await traced.chat(headers={"traceparent": sent})).status == 200
    await until(lambda: len(spans.get_finished_spans()) == 2)
    (server,) = of_kind(spans, SpanKind.SERVER)
    assert server.parent is None


async def test_every_attempt_is_a_span_and_a_failure_an_error(
    traced: Running, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    async def cut(seen: Seen, out: Out) -> None:
        out.cut()

    upstream.script = cut
    assert (await traced.chat()).status == 502
    await until(lambda: len(of_kind(spans, SpanKind.SERVER)) == 1)
    attempts = of_kind(spans, SpanKind.CLIENT)
    assert len(attempts) == upstream.calls > 1
    (server,) = of_kind(spans, SpanKind.SERVER)
    assert server.status.status_code is StatusCode.ERROR
    for attempt in attempts:
        assert attempt.status.status_code is StatusCode.ERROR
        assert (attempt.attributes or {})["error.type"] == "ServerDisconnectedError"
        assert not attempt.events, "an error's words could be an upstream's"


async def test_an_answer_that_breaks_off_is_an_error_of_its_attempt(
    traced: Running, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    upstream.script = broken_off(chunks("hel")[0])
    await traced.chat(stream=True)
    await until(lambda: len(of_kind(spans, SpanKind.CLIENT)) == 1)
    (attempt,) = of_kind(spans, SpanKind.CLIENT)
    assert attempt.status.status_code is StatusCode.ERROR
    told = dict(attempt.attributes or {})
    assert (told["http.response.status_code"], told["error.type"]) == (200, "Broken")


async def test_an_attempt_names_the_api_and_the_server(
    traced: Running, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    said = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    await traced.post("/v1/messages", said, {"x-api-key": "sk-ant-client"})
    await until(lambda: len(of_kind(spans, SpanKind.CLIENT)) == 1)
    (attempt,) = of_kind(spans, SpanKind.CLIENT)
    told = dict(attempt.attributes or {})
    assert told["gen_ai.provider.name"] == "anthropic"
    assert told["server.address"] == "127.0.0.1"
    assert told["server.port"] == URL(upstream.url).port


async def test_those_who_share_a_call_share_its_span(
    traced: Running, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    gate, answer = asyncio.Event(), upstream.script

    upstream.script = once(gate, answer)
    asking = [asyncio.create_task(traced.chat()) for _ in range(5)]
    await until(lambda: traced.assembly.world.following == 5)
    gate.set()
    await asyncio.gather(*asking)
    await until(lambda: len(of_kind(spans, SpanKind.SERVER)) == 5)
    assert len(of_kind(spans, SpanKind.CLIENT)) == 1


async def test_nothing_of_what_was_said_is_in_a_span(
    traced: Running, spans: InMemorySpanExporter
) -> None:
    await traced.chat("a secret question", headers={"authorization": "Bearer sk-secret"})
    await traced.get("/v1/models/a%20secret?key=sk-secret", {"authorization": "Bearer sk-secret"})
    await until(lambda: len(of_kind(spans, SpanKind.SERVER)) == 2)
    told = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "hello" not in told
    assert "question" not in told
    assert "sk-secret" not in told


async def test_names_that_clients_choose_are_no_names_of_spans(
    traced: Running, spans: InMemorySpanExporter
) -> None:
    for number in range(5):
        await traced.get(f"/v1/anything/{number}")
        await traced.chat(model=f"model {number}\n" + "x" * 1000)
    await until(lambda: len(of_kind(spans, SpanKind.SERVER)) == 10)
    names = {span.name for span in spans.get_finished_spans()}
    assert names == {"GET", f"POST {CHAT}", "chat", "GET upstream"}
    for span in of_kind(spans, SpanKind.SERVER):
        model = (span.attributes or {}).get("gen_ai.request.model", "")
        assert len(str(model)) <= 140
        assert str(model).isprintable()


async def test_what_is_not_sampled_is_not_recorded_and_says_so_upstream(
    gateway: Running, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    gateway.assembly.trace(Tracing(provider))
    for _ in range(2):
        await gateway.chat()
    flags = upstream.seen[0].headers["traceparent"].rpartition("-")[2]
    assert not int(flags, 16) & 1
    assert not spans.get_finished_spans()


async def test_spans_arrive_at_a_receiver_over_http(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = await stage.another_upstream()

    async def accept(seen: Seen, out: Out) -> None:
        await out.whole(b"", kind="application/x-protobuf")

    receiver.script = accept
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.removesuffix("/v1"))
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    gateway = await stage.gateway(tracing={"enabled": True})
    for _ in range(2):
        await gateway.chat()
    tracing = gateway.assembly.tracing
    assert tracing is not None
    await asyncio.to_thread(tracing.close)
    found: list[str] = []
    for seen in receiver.seen:
        assert seen.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(seen.body).resource_spans:
            about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            assert about["service.name"] == "thinkonce"
            assert about["deployment.environment.name"] == "test"
            found += [span.name for scope in resource.scope_spans for span in scope.spans]
    assert sorted(found) == sorted(["chat", f"POST {CHAT}", f"POST {CHAT}"])


def test_where_it_is_off_nothing_of_it_is_imported() -> None:
    program = (
        "import sys, thinkonce.gateway.assembly, thinkonce.gateway.serve;"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_a_sample_is_traced_under_its_own_key_and_with_its_own_tokens(
    stage: Stage, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    async def count_up(seen: Seen, out: Out) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": stage.upstream.calls}
        await out.json(completion(usage=usage | {"total_tokens": 10 + stage.upstream.calls}))

    stage.upstream.script = count_up
    gateway = await stage.gateway(cache={"samples": 2})
    gateway.assembly.trace(Tracing(provider))
    keys = [(await gateway.chat()).headers["x-cache-key"] for _ in range(5)]
    await until(lambda: len(of_kind(spans, SpanKind.SERVER)) == 5)
    facts = [dict(span.attributes or {}) for span in of_kind(spans, SpanKind.SERVER)]
    assert [each["thinkonce.key"] for each in facts] == keys
    assert keys == [keys[0], keys[1]] * 2 + [keys[0]]
    assert [each.get("thinkonce.tokens_saved") for each in facts] == [None, None, 11, 12, 11]


async def test_a_fallbacks_answer_is_traced_under_the_key_it_lies_under(
    stage: Stage, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    one = await chain(stage)
    one.gateway.assembly.trace(Tracing(provider))
    one.main.script = saying(503)
    keys = [(await one.gateway.chat()).headers["x-cache-key"] for _ in range(2)]
    await until(lambda: len(of_kind(spans, SpanKind.SERVER)) == 2)
    facts = [dict(span.attributes or {}) for span in of_kind(spans, SpanKind.SERVER)]
    assert [each["thinkonce.key"] for each in facts] == keys
