"""A model in this process: `thinkonce.kv.Engine`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from thinkonce.errors import ConfigError, RequestError
from thinkonce.kv import Engine

ASK: Any = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 12}]
GREEDY: Any = {"max_tokens": 12, "temperature": 0}


def test_a_beginning_is_read_once_and_found_after_a_restart(
    model_folder: Path, tmp_path: Path
) -> None:
    where = {"ram": "64MiB", "disk": str(tmp_path / "kv"), "chunk": 64}
    with Engine.open(str(model_folder), **where) as engine:  # type: ignore[arg-type]
        first, second = (engine.chat(ASK, **GREEDY) for _ in range(2))
        assert first.usage.cached_tokens == 0 < second.usage.cached_tokens
        assert "".join(engine.stream(ASK, **GREEDY)) == first.text == second.text
        assert first.usage.completion_tokens == 12
        assert first.finish_reason == "length"
    with Engine.open(str(model_folder), **where) as again:  # type: ignore[arg-type]
        third = again.chat(ASK, **GREEDY)
        assert third.text == first.text
        assert third.usage.cached_tokens == second.usage.cached_tokens
        assert again.stats()["disk"]["tokens_loaded"] > 0


def test_what_cannot_work_is_named(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="ram"):
        Engine.open(str(model_folder), ram="much")
    with pytest.raises(
        ConfigError, match=r"^ram \(\[kv\] memory\)=1000 does .* bytes or more, one"
    ):
        Engine.open(str(model_folder), ram="1kB")
    with Engine.open(str(model_folder)) as engine:
        with pytest.raises(RequestError, match="context holds 2048"):
            engine.chat(ASK, max_tokens=2048)
        with pytest.raises(RequestError, match=r"kv_cache\.lifetime"):
            engine.chat(ASK, kv_cache={"lifetime": 1})
        with pytest.raises(RequestError, match="call `stream`"):
            engine.chat(ASK, n=2)
        for given, said in (
            ({"document": ["x"]}, "document: got .*; it accepts one of documents, reuse, model"),
            ({"documents": "a text"}, "documents: got 'a text'; it accepts a list"),
            ({"documents": {"id": "a", "text": "x"}}, "documents: got .*; it accepts a list"),
            ({"documents": [("id", "text")]}, r"documents\[0\]: got \('id', 'text'\)"),
            ({"documents": [{"id": 7, "text": "x"}]}, r"documents\[0\]: got {'id': 7"),
            ({"schema": "s", "modules": "who"}, "modules: got 'who'; it accepts array"),
        ):
            with pytest.raises(RequestError, match=said):
                engine.chat(ASK, **given)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="messages: got 'hi'; it accepts a list"):
            engine.chat("hi")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="closed"):
        engine.chat(ASK)


@pytest.mark.parametrize(
    "said",
    [
        {"chunk": 0},
        {"chunk": -1},
        {"chunk": "many"},
        {"method": "fast"},
        {"link_tokens": -1},
        {"link_tokens": 257},
        {"sentence_tokens": 200.5},
    ],
)
def test_a_setting_is_checked_as_the_server_checks_it(
    model_folder: Path, said: dict[str, Any]
) -> None:
    name, value = next(iter(said.items()))
    with pytest.raises(ConfigError, match=f"^{name}={value!r} does not work"):
        Engine.open(str(model_folder), **said)


def test_what_is_no_text_is_named_before_a_model_is_loaded() -> None:
    wrongs: Any = ({"model": 0}, {"disk": 5}, {"dtype": ["bfloat16"]}, {"device": None})
    sealed: Any = {"encryption_key": b"secret"}
    for said in wrongs:
        name, value = next(iter(said.items()))
        with pytest.raises(ConfigError, match=f"^{name}={re.escape(repr(value))} does not work"):
            Engine.open(**said)
    with pytest.raises(ConfigError) as wrong:
        Engine.open(**sealed)
    assert "secret" not in str(wrong.value)


def test_a_purge_of_no_document_purges_nothing(model_folder: Path) -> None:
    with Engine.open(str(model_folder)) as engine:
        engine.chat(ASK, **GREEDY)
        for nothing in (None, ""):
            with pytest.raises(RequestError, match=r"document: got .*; it accepts the id"):
                engine.purge(document=nothing)  # type: ignore[arg-type]
        assert engine.chat(ASK, **GREEDY).usage.cached_tokens > 0


def test_a_purge_by_tag_or_namespace_takes_what_has_it(model_folder: Path) -> None:
    tagged = {"kv_cache": {"tags": ["prices"], "namespace": "shop"}}
    with Engine.open(str(model_folder)) as engine:
        for named in ({"tag": "prices"}, {"namespace": "shop"}):
            for more in (tagged, {}):
                engine.chat(ASK, **GREEDY, **more)
            assert engine.purge(**named) > 0
            assert engine.chat(ASK, **GREEDY, **tagged).usage.cached_tokens == 0
            assert engine.chat(ASK, **GREEDY).usage.cached_tokens > 0
        with pytest.raises(RequestError, match="tag: got 3; it accepts the tag"):
            engine.purge(tag=3)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="document: got None"):
            engine.purge()


def test_a_stream_that_is_not_read_to_its_end_does_not_hold_up_the_end(model_folder: Path) -> None:
    with Engine.open(str(model_folder)) as engine:
        pieces = engine.stream(ASK, **GREEDY)
        next(pieces)
    with pytest.raises(RuntimeError, match="closed"):
        next(pieces)
    assert engine.stats()["sequences"] == 0


def test_who_is_told_of_progress_cannot_ask(model_folder: Path) -> None:
    with Engine.open(str(model_folder)) as engine:
        for ask in (lambda: engine.chat(ASK), engine.close, lambda: engine.purge(document="x")):
            with pytest.raises(RuntimeError, match="it can ask nothing"):
                engine.preload(ASK, progress=lambda read, of, ask=ask: ask())  # type: ignore[misc]
        assert engine.preload(ASK).kept_tokens > 0


def test_a_document_s_id_that_is_no_text_is_refused_and_spoils_no_folder(
    model_folder: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        with Engine.open(str(model_folder), disk=str(tmp_path / "kv")) as engine:
            with pytest.raises(RequestError, match="document: got 5; it accepts the id"):
                engine.purge(document=5)  # type: ignore[arg-type]
            engine.purge(document="doc-5")


def test_the_example_of_explaining_runs(model_folder: Path) -> None:
    """With the small model in place of the packaged one."""
    page = (Path(__file__).parents[2] / "docs" / "kv.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n((?:(?!```).)*?\.explain\n.*?)```", page, re.DOTALL)
    name = "SmolLM2-135M-Instruct"
    assert name in code
    exec(compile(code.replace(name, str(model_folder)), "docs/kv.md", "exec"), {})
