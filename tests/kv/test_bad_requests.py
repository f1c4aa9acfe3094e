"""What comes in wrong: each answered in OpenAI's shape, naming the field."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from small_model import Serve, Served

from thinkonce.kv.serving.intake import ModelLimits

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
JSON = {"content-type": "application/json"}


class Answered:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers = response.status, response.headers
        self.body = response.read()

    @property
    def error(self) -> Any:
        error = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        return error


def send(
    served: Served,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = JSON,
) -> Answered:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
    try:
        connection.request(method, path, body, headers=dict(headers))
        return Answered(connection.getresponse())
    finally:
        connection.close()


def post(served: Served, **fields: Any) -> Answered:
    return send(served, "POST", "/v1/chat/completions", json.dumps({**GOOD, **fields}).encode())


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"stop": "a" * 1025}, "stop"),
    ({"messages": "hi"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"role": "narrator", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
        "messages[0].content[0].text",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]},
        "messages[0].tool_calls[0].function.arguments",
    ),
    ({"model": 3}, "model"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "0"}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": True}, "n"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"seed": 2**63}, "seed"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": [3]}, "stop[0]"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"400": 1}}, "logit_bias"),
    ({"logit_bias": {"3": 101}}, "logit_bias[...]"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format.type"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"functions": [{}]}, "functions"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
]


def test_each_wrong_field_is_named(served: Served) -> None:
    for fields, param in WRONG_FIELDS:
        answer = post(served, **fields)
        assert answer.status == 400, fields
        assert answer.error["param"] == param, fields
        assert answer.error["type"] == "invalid_request_error"
    assert served.generator.begun == [], "nothing wrong reaches the model"


def test_the_message_names_the_value_and_what_works(served: Served) -> None:
    message = post(served, temperature=3).error["message"]
    assert message == "temperature: got 3; it accepts float <= 2.0"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("purge", {"tag": ["a"]}, "tag: got ['a']; it accepts one of tags, document, "),
        ("purge", {"document": 7}, "document: got 7; it accepts str"),
        ("purge", ["all"], "body: got ['all']; it accepts a JSON object with tags"),
        ("limits", {"memory": "1GiB"}, "memory: got '1GiB'; it accepts int"),
        ("schemas", {"shema": "x"}, "shema: got 'x'; it accepts one of schema, kv_cache"),
        ("schemas", {"kv_cache": {}}, "schema: got None; it accepts a value; it is required"),
    ],
)
def test_what_paths_below_kv_cannot_take_is_named(
    served: Served, path: str, body: Any, said: str
) -> None:
    answer = httpx.post(f"{served.url}/kv/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(said)


def test_unknown_fields_and_the_cache_s_own_are_accepted(served: Served) -> None:
    answer = post(served, kv_cache={"enabled": True}, prompt_cache_key="k", user="u", made_up=[1])
    assert answer.status == 200


def test_nulls_mean_absent(served: Served) -> None:
    fields = dict.fromkeys(("model", "temperature", "stop", "n", "seed", "tools", "stream_options"))
    assert post(served, **fields).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b'"hi"',
        b"{" * 5000,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["empty", "word", "list", "text", "open", "surrogate", "latin", "deep"],
)
def test_a_body_that_is_no_json_object_is_refused(served: Served, body: bytes) -> None:
    answer = send(served, "POST", "/v1/chat/completions", body)
    assert answer.status == 400
    assert answer.error["param"] == "body"


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(serve: Serve) -> None:
    served = serve(limits=ModelLimits(max_body_bytes=1000))
    body = json.dumps({**GOOD, "user": "u" * 2000}).encode()
    assert send(served, "POST", "/v1/chat/completions", body).status == 413
    sent_in_pieces = iter([b"x" * 600, b"x" * 600])
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
    connection.request("POST", "/v1/completions", sent_in_pieces, JSON, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize("path", ["chat/completions", "completions", "messages"])
def test_a_text_of_megabytes_is_refused_before_it_is_tokenised(served: Served, path: str) -> None:
    said = {"prompt": "a" * 4_000_000} if path == "completions" else {}
    asked = {"messages": [{"role": "user", "content": "<|im_end|>" * 400_000}], **said}
    answer = send(served, "POST", f"/v1/{path}", json.dumps({**asked, "max_tokens": 1}).encode())
    assert answer.status == 400
    assert b"characters" in answer.body


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
@pytest.mark.parametrize("said", [{"reuse": "modules"}, {"id": 7}, {"ttl": "5m"}, 1])
def test_a_part_that_asks_for_what_there_is_not_is_refused(
    served: Served, path: str, said: Any
) -> None:
    part = {"type": "text", "text": "x", "kv_cache": said}
    body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
    answer = send(served, "POST", f"/v1/{path}", json.dumps(body).encode())
    assert answer.status == 400
    assert b"messages[0].content[0].kv_cache" in answer.body
    part["kv_cache"] = {"reuse": "exact"}
    assert send(served, "POST", f"/v1/{path}", json.dumps(body).encode()).status == 200


DEEP = '{"a":' * 800 + "1" + "}" * 800
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": DEEP}}


@pytest.mark.parametrize(
    "fields",
    [
        f'"messages": [{{"role": "user", "content": "x", "name": {DEEP}}}]',
        f'"messages": [{{"role": "user", "content": "x"}}], "chat_template_kwargs": {DEEP}',
        f'"messages": [{{"role": "assistant", "tool_calls": [{json.dumps(CALL)}]}}]',
        f'"messages": [{{"role": "user", "content": "x"}}], "n": {DEEP}',
    ],
    ids=["name", "variables", "arguments", "wrong"],
)
def test_values_in_hundreds_of_others_are_refused(served: Served, fields: str) -> None:
    answer = send(served, "POST", "/v1/chat/completions", f'{{{fields}, "max_tokens": 1}}'.encode())
    assert answer.status == 400


def test_a_temperature_that_logits_cannot_be_divided_by_is_none(served: Served) -> None:
    texts = {
        json.loads(post(served, temperature=heat, max_tokens=8).body)["choices"][0]["message"][
            "content"
        ]
        for heat in (0, 5e-324, 1e-40)
    }
    assert len(texts) == 1


def test_bodies_on_their_way_are_bounded_together(serve: Serve) -> None:
    served = serve(limits=ModelLimits(max_body_bytes=4000, max_reading_bytes=2000))
    body = json.dumps({**GOOD, "user": "u" * 1500}).encode()
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port or 80)) as slow:
        sized = f"host: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        head = f"POST /v1/completions HTTP/1.1\r\n{sized}"
        slow.sendall(head.encode() + body[:-1])
        deadline = time.monotonic() + 10
        while (answer := send(served, "POST", "/v1/chat/completions", body)).status == 200:
            assert time.monotonic() < deadline, "the body on its way was never counted"
        assert (answer.status, answer.error["code"]) == (503, "server_busy")
        assert post(served).status == 200, "a small one has room"
        slow.sendall(body[-1:])
        assert slow.recv(100).startswith(b"HTTP/1.1 400 "), "completions need a prompt"
    assert send(served, "POST", "/v1/chat/completions", body).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/x-www-form-urlencoded"},
        {**JSON, "content-encoding": "gzip"},
    ],
)
def test_a_body_of_another_kind_is_refused(served: Served, headers: dict[str, str]) -> None:
    body = json.dumps(GOOD).encode()
    answer = send(served, "POST", "/v1/chat/completions", body, headers)
    assert answer.status == 415
    assert (
        "accepts application/json" in answer.error["message"] or "gzip" in answer.error["message"]
    )


def test_paths_work_with_and_without_the_prefix(served: Served) -> None:
    body = json.dumps(GOOD).encode()
    for prefix in ("", "/v1"):
        assert send(served, "POST", f"{prefix}/chat/completions", body).status == 200
        assert send(served, "GET", f"{prefix}/models").status == 200
        assert send(served, "GET", f"{prefix}/models/tiny").status == 200


def test_an_unknown_path_is_404_and_a_wrong_method_405(served: Served) -> None:
    assert send(served, "GET", "/v1/nothing").error["code"] == "unknown_url"
    answer = send(served, "GET", "/v1/chat/completions")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert send(served, "DELETE", "/v1/models").status == 405
    assert send(served, "GET", "/v1/models/other").error["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses"])
def test_what_is_not_built_yet_says_so(served: Served, path: str) -> None:
    answer = send(served, "POST", path, b"{}")
    assert answer.status == 501
    assert "not built yet" in answer.error["message"]


def test_health_is_told_while_the_server_lives(served: Served) -> None:
    assert json.loads(send(served, "GET", "/healthz").body) == {"status": "ok"}
    assert send(served, "GET", "/readyz").status == 200
    assert send(served, "HEAD", "/readyz").body == b""


def test_the_request_id_is_kept_or_made(served: Served) -> None:
    assert (
        send(served, "GET", "/healthz", None, {"x-request-id": "abc-1"}).headers["x-request-id"]
        == "abc-1"
    )
    made = [send(served, "GET", "/healthz").headers["x-request-id"] for _ in range(2)]
    assert len(set(made)) == 2


def test_a_failing_model_is_a_500_that_tells_no_details(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("secret prompt")

    monkeypatch.setattr(served.generator.inner, "generate", fail)
    for stream in (False, True):
        answer = post(served, stream=stream)
        assert (answer.status, answer.error["type"]) == (500, "server_error")
        assert b"secret" not in answer.body
    assert "generation failed" in caplog.text


def test_a_head_beyond_the_limit_is_refused_with_a_431(served: Served) -> None:
    answer = send(served, "GET", "/healthz", headers={"x-long": "x" * 70_000})
    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")
    assert send(served, "GET", "/healthz").status == 200
