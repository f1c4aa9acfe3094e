"""The description of the gateway, held against the gateway: no path too many, none missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import validate

from gateway.conftest import Running, Stage
from gateway.upstream import Upstream
from thinkonce import settings as known
from thinkonce.engine.marks import MARKS
from thinkonce.errors import RequestError
from thinkonce.gateway.admin.router import ROUTES
from thinkonce.gateway.description import document_of
from thinkonce.gateway.description.endpoints import FORWARDED
from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.protocols.registry import SPEECHES, by_path
from thinkonce.request.controls import FIELDS, LITELLM_FIELDS, parse_controls
from thinkonce.version import __version__

SRC = Path(__file__).parent.parent.parent / "src" / "thinkonce"
ONLY_IN_THE_LOG = {499}


async def described(gateway: Running) -> Any:
    got = await gateway.get("/openapi.json")
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    return got.json


async def test_it_is_valid_openapi_and_has_the_packages_version(gateway: Running) -> None:
    document = await described(gateway)
    validate(document)
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == __version__


async def test_every_path_of_the_gateway_is_described_and_no_other(gateway: Running) -> None:
    app = gateway.assembly.gateway
    admin = {(method.lower(), "/cache/" + name.replace("KEY", "{key}")) for method, name in ROUTES}
    forwarded = {(method, p + name) for method, name in FORWARDED for p in ("/v1/", "/")}
    served = {("post", path) for path in app.cached} | {("get", path) for path in app._pages}
    document = await described(gateway)
    said = {(method, path) for path, item in document["paths"].items() for method in item}
    assert said - forwarded == served | admin
    assert forwarded <= said


async def test_what_is_described_as_forwarded_reaches_the_upstream(
    gateway: Running, upstream: Upstream
) -> None:
    for method, name in FORWARDED:
        path = name.replace("{model}", "m")
        got = await gateway.send(method.upper(), f"/v1/{path}", b"{}")
        assert (got.cache, got.reason) == ("BYPASS", "endpoint"), path
    assert upstream.calls == len(FORWARDED)


def test_each_path_of_a_provider_is_described_with_and_without_its_version() -> None:
    paths = document_of(known.Settings())["paths"]
    for name in (*SPEECHES, *(name for _, name in FORWARDED)):
        with_version, without = paths[f"/v1/{name}"], paths[f"/{name}"]
        for method, operation in with_version.items():
            assert operation["operationId"] != without[method]["operationId"]
            assert {**operation, "operationId": ""} == {**without[method], "operationId": ""}


# What fields mean nothing without.
BESIDE = {
    "key_mode": {"cache_key": "l"},
    "modules": {"schema": "s"},
    "arguments": {"schema": "s"},
}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_control_is_described_as_it_is_read(name: str) -> None:
    document = document_of(known.Settings())
    schema, null = document["components"]["schemas"]["CacheControls"]["properties"][name]["anyOf"]
    header = document["components"]["parameters"][f"x-thinkonce-{name.replace('_', '-')}"]
    assert null == {"type": "null"}
    assert header["schema"] == schema
    assert header["in"] == "header"
    for value in accepted(schema):
        parse_controls({name: value, **BESIDE.get(name, {})}, None, [])
    with pytest.raises(RequestError):
        parse_controls({name: {"no": ["control is this"]}, **BESIDE.get(name, {})}, None, [])


def accepted(schema: Any) -> list[Any]:
    """A few values that `schema` lets in, at its edges."""
    if "anyOf" in schema:
        return [value for each in schema["anyOf"] for value in accepted(each)]
    if "enum" in schema:
        return list(schema["enum"])
    if schema["type"] == "string":
        return ["90s", "5m", "1.5h"] if "pattern" in schema else ["x" * schema["maxLength"]]
    if schema["type"] == "object":
        return [{}, {"name": "a text"}]
    return {
        "boolean": [True, False],
        "number": [schema.get("minimum", 0), schema.get("maximum", 1e9)],
        "array": [["x"] * 1, [str(n) for n in range(schema.get("maxItems", 0))]],
    }[schema["type"]]


def test_controls_that_nobody_reads_are_described_as_refused() -> None:
    schemas = document_of(known.Settings())["components"]["schemas"]
    for name, fields in (("CacheControls", set(FIELDS)), ("LiteLLMControls", LITELLM_FIELDS)):
        assert set(schemas[name]["properties"]) == fields
        assert schemas[name]["additionalProperties"] is False
    for speech in SPEECHES.values():
        assert schemas[speech.facts.schema.name]["additionalProperties"] is True


def test_the_words_of_the_headers_are_those_of_outcomes_and_reasons() -> None:
    headers = document_of(known.Settings())["components"]["headers"]
    assert headers["x-cache"]["schema"]["enum"] == [each.upper() for each in Outcome]
    assert headers["x-cache-reason"]["schema"]["enum"] == list(Reason)
    assert headers["x-cache-not-stored"]["schema"]["enum"] == list(Reason)
    assert headers["x-cache-match"]["schema"]["enum"] == list(Match)
    assert set(headers) == set(MARKS)


async def test_a_hit_says_nothing_that_is_not_described(gateway: Running) -> None:
    await gateway.chat()
    got = await gateway.chat()
    document = await described(gateway)
    answer = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]
    ours = {name for name in got.headers if name.startswith("x-") or "cache" in name}
    assert ours <= set(answer["headers"])
    assert set(got.json["kv_cache"]) <= set(
        document["components"]["schemas"]["Annotation"]["properties"]
    )


def test_every_status_that_the_gateway_raises_is_described() -> None:
    raised = {
        int(status)
        for folder in ("gateway", "upstream", "web")
        for file in (SRC / folder).rglob("*.py")
        for status in re.findall(
            r"(?:HttpError\(\s*|status = )([1-5]\d\d)\b", file.read_text(encoding="utf-8")
        )
    } - ONLY_IN_THE_LOG
    document = document_of(known.Settings())
    said = {
        status
        for item in document["paths"].values()
        for operation in item.values()
        for status in operation["responses"]
    }
    assert len(raised) > 10, "the search itself finds something"
    assert {str(status) for status in raised} <= said


async def test_lives_by_name_are_those_of_the_configuration(stage: Stage) -> None:
    lives = {**known.Settings().ttl_classes, "monthly": known.TtlClass(ttl=30 * 86_400.0)}
    document = document_of(msgspec.structs.replace(known.Settings(), ttl_classes=lives))
    ttl = document["components"]["schemas"]["CacheControls"]["properties"]["ttl"]
    assert "monthly" in json.dumps(ttl)


def test_keys_and_tokens_are_described_as_needed_where_they_are() -> None:
    def needed(settings: known.Settings, path: str, method: str) -> list[Any]:
        return list(document_of(settings)["paths"][path][method]["security"])

    open_one = known.Settings()
    guarded = msgspec.structs.replace(
        open_one,
        admin=known.Admin(token="a long enough token"),
        clients={"alice": known.Client(key_sha256="0" * 64)},
    )
    assert {} in needed(open_one, "/v1/chat/completions", "post")
    assert {} in needed(open_one, "/cache/stats", "get")
    assert {} not in needed(guarded, "/v1/chat/completions", "post")
    assert needed(guarded, "/cache/stats", "get") == [{"admin": []}]


async def test_no_marks_are_described_where_all_are_served_strictly(stage: Stage) -> None:
    for gateway, marks in (({}, {"cache_hit", "kv_cache"}), ({"strict": True}, set())):
        told = await described(await stage.gateway(gateway=gateway))
        assert told["components"]["schemas"]["Marked"].get("properties", {}).keys() == marks
        for path in ("/v1/chat/completions", "/v1/moderations"):
            headers = told["paths"][path]["post"]["responses"]["200"]["headers"]
            assert ("x-cache" in headers) == bool(marks)
            assert "x-request-id" in headers


async def test_a_reload_changes_what_is_described(stage: Stage) -> None:
    gateway = await stage.gateway()
    before = await described(gateway)
    upstreams = {"main": known.Upstream(urls=[stage.upstream.url])}
    settings = known.Settings(upstreams=upstreams, admin=known.Admin(token="a long enough token"))
    gateway.assembly.adopt(settings, gateway.assembly.pools)
    after = await described(gateway)
    assert before["paths"]["/cache/stats"]["get"]["security"] != [{"admin": []}]
    assert after["paths"]["/cache/stats"]["get"]["security"] == [{"admin": []}]


# -- the front page ------------------------------------------------------------------------------


async def test_a_browser_at_the_base_url_reads_where_to_go(
    gateway: Running, upstream: Upstream
) -> None:
    got = await gateway.get("/", {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (got.status, got.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert __version__ in got.body.decode()
    assert upstream.calls == 0


async def test_the_places_that_the_front_page_names_are_there(gateway: Running) -> None:
    got = await gateway.get("/", {"accept": "*/*"})
    assert got.json["version"] == __version__
    places = set(got.json["places"])
    assert {"/v1", "/openapi.json"} < places
    for place in places - {"/v1"}:
        assert (await gateway.get(place)).status == 200, place


async def test_what_is_posted_to_the_base_url_is_forwarded(
    gateway: Running, upstream: Upstream
) -> None:
    got = await gateway.post("/", {"inputs": "as TGI takes it"})
    assert (got.cache, upstream.calls) == ("BYPASS", 1)


async def test_every_way_of_speaking_has_its_endpoint(gateway: Running) -> None:
    """What the registry lists is read, billed and described: who forgets the endpoint is told."""
    assert gateway.assembly.service.cached.keys() == by_path(SPEECHES).keys()
