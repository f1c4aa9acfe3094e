"""Headers: what travels, what counts, who asks."""

from __future__ import annotations

import pytest

from thinkonce.request.headers import HARMLESS, headers_named, take_headers, with_one_type

SDK = [
    (b"host", b"localhost:8000"),
    (b"accept-encoding", b"gzip"),
    (b"connection", b"keep-alive"),
    (b"accept", b"application/json"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"OpenAI/Python"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-retry-count", b"1"),
    (b"traceparent", b"00-4bf9"),
    (b"x-forwarded-for", b"10.0.0.1"),
    (b"authorization", b"Bearer secret"),
    (b"content-length", b"71"),
    (b"cookie", b"session=1"),
    (b"x-unknown", b"1"),
]


def test_an_sdk_sends_nothing_that_spoils_the_key() -> None:
    taken = take_headers(SDK)
    assert taken.keyed == ()
    assert taken.forward == (
        (b"accept", b"application/json"),
        (b"content-type", b"application/json"),
    )


def test_a_credential_makes_the_tenant_and_is_not_forwarded_unasked() -> None:
    sent = [
        (b"x-api-key", b"1"),
        (b"openai-project", b"p"),
        (b"api-key", b"2"),
        (b"openai-organization", b"o"),
        (b"authorization", b"3"),
    ]
    taken = take_headers(sent)
    assert taken.forward == taken.keyed == ()
    assert sorted(sent) == list(taken.credential), "in one order, whatever was sent first"


@pytest.mark.parametrize("name", [b"anthropic-version", b"anthropic-beta", b"openai-beta"])
def test_what_a_provider_reads_is_forwarded_and_keyed(name: bytes) -> None:
    taken = take_headers([*SDK, (name, b"v")])
    assert (name, b"v") in taken.forward
    assert taken.keyed == ((name, b"v"),)


def test_a_language_may_change_the_answer() -> None:
    assert take_headers([(b"accept-language", b"de")]).keyed == ((b"accept-language", b"de"),)


def test_a_configured_header_is_keyed_whatever_it_is() -> None:
    extra = frozenset({b"x-unknown", b"user-agent", b"x-stainless-lang", b"x-forwarded-for"})
    taken = take_headers(SDK, extra)
    assert {name for name, _ in taken.keyed} == extra
    assert {name for name, _ in taken.forward} == extra | {b"accept", b"content-type"}


def test_a_type_is_a_clients_own_only_where_it_is_in_the_key() -> None:
    sent = [(b"accept", b"text/csv"), (b"content-type", b"application/vnd.api+json")]
    for stream, accepts in ((False, b"application/json"), (True, b"text/event-stream")):
        taken = with_one_type(take_headers(sent), stream=stream)
        one = ((b"accept", accepts), (b"content-type", b"application/json"))
        assert (taken.forward, taken.keyed) == (one, ())
    named = with_one_type(take_headers(sent, headers_named(["Accept"])), stream=False)
    assert named.forward == ((b"accept", b"text/csv"), (b"content-type", b"application/json"))
    assert named.keyed == ((b"accept", b"text/csv"),)


def test_a_star_keys_every_header_that_is_not_addressed_to_us() -> None:
    ours = [(b"cache-control", b"no-store"), (b"x-thinkonce-tags", b"a")]
    traces = [(b"baggage", b"1"), (b"x-datadog-trace-id", b"2"), (b"idempotency-key", b"3")]
    taken = take_headers([*SDK, *ours, *traces, (b"x-portkey", b"p")], headers_named(["*"]))
    assert [name for name, _ in taken.keyed] == [b"cookie", b"x-portkey", b"x-unknown"]
    assert {name for name, _ in taken.forward}.isdisjoint({b"host", *(name for name, _ in ours)})
    assert headers_named(["X-A"]) == {b"x-a"}


def test_order_of_headers_does_not_count_but_order_of_their_values_does() -> None:
    first = [(b"openai-beta", b"a"), (b"anthropic-beta", b"x"), (b"openai-beta", b"b")]
    moved = [(b"anthropic-beta", b"x"), (b"openai-beta", b"a"), (b"openai-beta", b"b")]
    turned = [(b"openai-beta", b"b"), (b"anthropic-beta", b"x"), (b"openai-beta", b"a")]
    assert take_headers(first).keyed == take_headers(moved).keyed
    assert take_headers(first).keyed != take_headers(turned).keyed


def test_harmless_names_are_in_lower_case() -> None:
    assert all(name == name.lower() for name in HARMLESS)
