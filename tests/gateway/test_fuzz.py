"""schemathesis against a running gateway: requests made of its description, fitting and not.

Nothing may be a failure of ours, every status must be described, every answer be of the type and
shape that is described for it. The same requests every time: they are derived from the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings

from gateway.served import provider, served
from leaks import until
from thinkonce.gateway.description import document_of
from thinkonce.settings import Settings

# One gateway serves all of them.
pytestmark = pytest.mark.xdist_group("fuzz")

SECONDS = 20
CONFORMANCE = (
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# Answers to what was asked, though they are called errors of a server: a control that is not built
# yet, and nothing stored where only that will do.
MEANT = {501: "not_implemented", 504: "not_cached"}
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, item in document_of(Settings())["paths"].items()
    for method in item
]
# Without their version they are the same operations: a test of the description says so.
WITH_VERSION = [each for each in OPERATIONS if each.replace(" /", " /v1/", 1) not in OPERATIONS]
FEW, MANY = 5, 100


@dataclass
class Target:
    """A gateway, its description, and where it logs."""

    url: str
    operations: dict[str, Any]
    checks: list[Any]
    key: str  # of an entry that is there
    log: Path


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    import schemathesis
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    schemathesis.serializer("application/jsonl")(_lines)
    folder = tmp_path_factory.mktemp("fuzz")
    store = f"sqlite:///{folder / 'answers.db'}"
    with (
        provider() as upstream,
        served(folder, "--upstream", upstream, "--store", store) as url,
    ):
        document = requests.get(f"{url}/openapi.json", timeout=SECONDS).json()
        schema = schemathesis.openapi.from_dict(document)
        found = [each.ok() for each in schema.get_all_operations()]
        operations = {each.label: each for each in found}
        checks = CHECKS.get_by_names(list(CONFORMANCE))
        yield Target(url, operations, checks, _stored(url), folder / "log")


def _lines(context: Any, value: Any) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def _stored(url: str) -> str:
    """The key of an answer that the gateway keeps."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    got = requests.post(f"{url}/v1/chat/completions", json=body, timeout=SECONDS)
    return got.headers["x-cache-key"]


def judged(target: Target, operation: Any, session: requests.Session) -> Callable[[Any], None]:
    """Sends one request and looks at the answer."""
    described = operation.definition.raw["responses"]

    def send(case: Any) -> None:
        got = case.call(base_url=target.url, session=session, timeout=SECONDS)
        assert str(got.status_code) in described, f"{got.status_code} is not described: {got.text}"
        if got.status_code >= 500:
            code = got.json()["error"].get("code", MEANT.get(got.status_code))
            assert code == MEANT.get(got.status_code), got.text
        case.validate_response(got, checks=target.checks)

    return send


def fuzz(target: Target, label: str, fitting: bool, examples: int) -> None:
    from schemathesis import GenerationMode

    operation = target.operations[label]
    if not fitting and not _can_be_wrong(operation):
        pytest.skip("nothing in it is described that could be wrong")
    mode = GenerationMode.POSITIVE if fitting else GenerationMode.NEGATIVE
    known = {"path_parameters": {"key": target.key}} if fitting and "{key}" in label else {}
    cases = operation.as_strategy(generation_mode=mode, **known)
    chosen = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with requests.Session() as session:
        chosen(given(cases)(judged(target, operation, session)))()


def _can_be_wrong(operation: Any) -> bool:
    """A path's parameter that is any text cannot be, nor a request without any part."""
    raw = operation.definition.raw
    given = [each for each in raw.get("parameters", ()) if each.get("in") != "path"]
    return bool(given or "requestBody" in raw or "{key}" in operation.label)


@pytest.mark.slow
@pytest.mark.parametrize("label", WITH_VERSION)
@pytest.mark.parametrize("fitting", [True, False], ids=["fitting", "odd"])
def test_requests_made_of_the_description_are_answered_as_described(
    target: Target, label: str, fitting: bool
) -> None:
    fuzz(target, label, fitting, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("fitting", [True, False], ids=["fitting", "odd"])
def test_many_requests_made_of_the_description_are_answered_as_described(
    target: Target, label: str, fitting: bool
) -> None:
    fuzz(target, label, fitting, MANY)


@pytest.mark.slow
def test_nothing_of_it_was_an_accident(target: Target) -> None:
    """The last one: what the others sent has left no trace of a failure."""

    def is_alone() -> bool:
        """Whether the scrape itself is all that is being answered: the last request may end yet."""
        text = requests.get(f"{target.url}/metrics", timeout=SECONDS).text
        return "thinkonce_inflight 1.0" in text

    until(is_alone, "the end of every request")
    assert "Traceback" not in target.log.read_text(encoding="utf-8")
