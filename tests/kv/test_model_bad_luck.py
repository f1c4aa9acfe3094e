"""What goes wrong around an answer, over real sockets: it is told, it frees its place."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from openai import APIStatusError, OpenAI
from small_gguf import write_gguf
from small_model import END, Serve, Served, client_of

from thinkonce.errors import ConfigError
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.weights.gguf import GgufFile
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

PATIENCE = 30.0
NO_END = {str(END): -100}
DOCUMENT = "The quick brown fox jumps over the lazy dog. " * 12


def ask(client: OpenAI, content: str, **fields: Any) -> Any:
    given = {"temperature": 0, "logit_bias": NO_END, **fields}
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(model="tiny", messages=messages, **given)


def stats(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{served.url}/kv/stats").json()
    return found


def wait(served: Served, holds: Callable[[Scheduler], bool]) -> None:
    assert served.scheduler.wait_until(holds, PATIENCE), "the line never came to that"


def error_of(caught: pytest.ExceptionInfo[APIStatusError]) -> tuple[int, Any]:
    return caught.value.status_code, caught.value.code


# -- turns ---------------------------------------------------------------------------------------


def test_a_short_answer_does_not_wait_for_a_long_one(served: Served, client: OpenAI) -> None:
    stream = ask(client, "everything", max_tokens=1500, stream=True)
    next(stream)
    assert ask(client, "something", max_tokens=2).usage.completion_tokens == 2
    assert served.scheduler.running == 1, "the long one goes on"
    stream.close()
    wait(served, lambda line: not line.running)
    assert stats(served)["sequences"] == 0


def test_drawn_answers_are_the_same_whatever_else_runs_and_is_known(serve: Serve) -> None:
    drawn = {"temperature": 0.9, "top_p": 0.95, "seed": 11, "max_tokens": 40}
    with client_of(serve(kv=Kv(reuse=False))) as alone:
        expected = [text_of(ask(alone, DOCUMENT + str(n), **drawn)) for n in range(3)]
    found: dict[int, str] = {}
    with client_of(serve()) as client:
        for _ in range(2):
            threads = [
                threading.Thread(
                    target=lambda n=n: found.update(
                        {n: text_of(ask(client, DOCUMENT + str(n), **drawn))}
                    )
                )
                for n in range(3)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert [found.pop(n) for n in range(3)] == expected


def text_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)


# -- memory --------------------------------------------------------------------------------------


def test_what_can_never_fit_is_refused_in_tokens_and_bytes(serve: Serve) -> None:
    token = stats(serve())["bytes_a_token"]
    small = serve(kv=Kv(chunk=64, memory=512 * token))
    with client_of(small) as client:
        with pytest.raises(APIStatusError) as caught:
            ask(client, "hello", max_tokens=600)
        assert error_of(caught) == (400, "context_length_exceeded")
        for number in (512 * token, 768 * token, 512):
            assert str(number) in str(caught.value)
        assert ask(client, "hello", max_tokens=2).usage.completion_tokens == 2
        whole = ask(client, "hello")
        assert whole.usage.total_tokens <= 512, "an answer without a bound takes what there is"


def test_memory_never_exceeds_its_budget_and_shrinks_while_the_server_runs(serve: Serve) -> None:
    token = stats(serve())["bytes_a_token"]
    served = serve(kv=Kv(chunk=64, memory=2048 * token))
    with client_of(served) as client:
        for number in range(6):
            ask(client, f"{number}" + DOCUMENT, max_tokens=3)
            told = stats(served)
            assert told["memory"]["bytes"] + told["slab_bytes"] <= 2048 * token
        url = f"{served.url}/kv/limits"
        changed = httpx.post(url, json={"memory": 1024 * token, "queue": 1}, headers=PLAIN)
        assert changed.status_code == 200
        told = stats(served)
        assert told["memory"]["bytes"] + told["slab_bytes"] <= 1024 * token
        assert (told["memory"]["max_bytes"], told["line"]["max_waiting"]) == (1024 * token, 1)
        assert ask(client, "0" + DOCUMENT, max_tokens=3).usage.completion_tokens == 3


PLAIN = {"accept": "*/*"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"x-forwarded-for": "10.0.0.1"}, 403),
        ({"host": "evil.example"}, 403),
        ({}, 200),
    ],
)
def test_only_programs_on_this_machine_change_limits(
    served: Served, headers: dict[str, str], status: int
) -> None:
    answer = httpx.post(f"{served.url}/kv/limits", json={"sequences": 2}, headers=headers)
    assert answer.status_code == status
    assert (served.scheduler.sequences == 2) == (status == 200)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"memory": 0}', b'{"ram": 1}', b'{"memory": 9}'])
def test_limits_that_cannot_work_are_named(served: Served, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{served.url}/kv/limits", content=body, headers=headers)
    assert answer.status_code == 400
    assert stats(served)["memory"]["max_bytes"] == Kv().memory


def test_memory_that_the_machine_has_not_is_a_503_and_the_next_request_is_served(
    served: Served, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = served.engine.reusing
    assert exact is not None

    def none_left(tokens: int) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(exact.slabs, "take", none_left)
        with pytest.raises(APIStatusError) as caught:
            ask(client, "hello", max_tokens=2)
    assert error_of(caught) == (503, "out_of_memory")
    assert ask(client, "hello", max_tokens=2).usage.completion_tokens == 2


# -- clients, clocks and threads -----------------------------------------------------------------


def test_a_client_that_leaves_while_its_prompt_is_read_frees_its_place(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, begun, go = served.engine.reusing, threading.Event(), threading.Event()
    assert exact is not None
    forward = exact.keeping.forward

    def slow(*given: Any) -> torch.Tensor:
        begun.set()
        assert go.wait(PATIENCE)
        return forward(*given)

    monkeypatch.setattr(exact.keeping, "forward", slow)
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc)
    body = json.dumps({"messages": [{"role": "user", "content": DOCUMENT * 4}], "max_tokens": 5})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    assert begun.wait(PATIENCE)
    ticket = served.scheduler._under_way[0]
    connection.close()
    assert ticket._cancelled.wait(PATIENCE)
    go.set()
    wait(served, lambda line: not line.running)
    assert served.generator.made == 0
    assert stats(served)["sequences"] == 0


def test_an_answer_that_is_late_is_a_504(serve: Serve) -> None:
    served = serve(deadline=1e-9)
    with client_of(served) as client, pytest.raises(APIStatusError) as caught:
        ask(client, "hello", max_tokens=5)
    assert error_of(caught) == (504, "deadline_exceeded")


def test_a_model_whose_thread_died_says_so_and_nobody_hangs(
    served: Served, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*given: object) -> None:
        raise SystemExit("the accelerator is gone")

    monkeypatch.setattr(served.generator.inner.keeping, "forward", die)
    for _ in range(2):
        with pytest.raises(APIStatusError) as caught:
            ask(client, "hello", max_tokens=5)
        assert error_of(caught) == (503, "model_failed")
    for path in ("healthz", "readyz"):
        answer = httpx.get(f"{served.url}/{path}")
        assert (answer.status_code, answer.json()["status"]) == (
            503,
            "the model's thread has died",
        )


# -- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_a_file_of_weights_that_was_not_loaded_to_its_end_is_refused(
    tmp_path: Path, part: float
) -> None:
    write_gguf(tmp_path / "small.gguf")
    whole = (tmp_path / "small.gguf").read_bytes()
    (tmp_path / "small.gguf").write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ConfigError, match=r"small\.gguf"):
        GgufFile(tmp_path / "small.gguf").weights(lambda part: None)


def test_weights_changed_under_the_same_name_find_nothing_after_a_restart(
    serve: Serve, model: Model, tmp_path: Path
) -> None:
    def cached() -> int:
        served = serve(kv=Kv(chunk=64, store=str(tmp_path / "kv")))
        with client_of(served) as client:
            answer = ask(client, DOCUMENT, max_tokens=2)
        served.engine.close()
        return int(answer.usage.prompt_tokens_details.cached_tokens)

    assert cached() == 0
    assert cached() > 0
    weight = model.network.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        was = weight[3, 5].item()
        try:
            weight[3, 5] = was + 1e-3
            assert cached() == 0
        finally:
            weight[3, 5] = was
