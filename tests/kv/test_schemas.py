"""Schemas in chats: as the model's template writes them, and asked for by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI
from small_model import TEMPLATE, Serve, Served, client_of, make_tokenizer

from thinkonce.errors import ConfigError, RequestError
from thinkonce.kv.embedded import Engine
from thinkonce.kv.modules.chat import Compiled, compiled
from thinkonce.kv.modules.folder import schemas_in
from thinkonce.kv.modules.markup import read_schema
from thinkonce.kv.modules.registry import Schemas
from thinkonce.kv.serving.requests.ask import Defaults, read_chat
from thinkonce.kv.serving.requests.modular import module_tokens
from thinkonce.settings import Kv

PERSONA = """
<schema name="persona">
  <system>
    Answer as the person below would.
    <module name="who">My name is <parameter name="name" length="12"/>.
    </module>
    <union>
      <module name="doctor">I am a doctor in a town by the sea, and I like to explain things.
      </module>
      <module name="farmer">I am a farmer, up before the sun, and I say little.
      </module>
    </union>
  </system>
</schema>
"""
OPEN = """
<schema name="open">
  <system>Be brief.</system>
  <user>
    Read this:
    <module name="text">The fox jumps over the dog.
    </module>
  </user>
</schema>
"""
ASKED = [{"role": "user", "content": "What is the capital of France?"}]
DEFAULTS = Defaults(temperature=0, top_p=1, top_k=0, max_tokens=8, vocabulary=400)


def schema_of(text: str, tokenizer: Any = None) -> Compiled:
    return compiled(read_schema(text), tokenizer or make_tokenizer(), 2048)


def prompt_text(schema: Compiled, tokenizer: Any, asked: Any = ASKED, **said: Any) -> str:
    body = json.dumps({"messages": asked, "kv_cache": {"schema": schema.name, **said}})
    prompt = module_tokens(tokenizer, read_chat(body.encode(), DEFAULTS), schema)
    return str(tokenizer.decode(list(prompt)))


# -- as the template writes it -------------------------------------------------------------------


def test_a_prompt_reads_as_the_template_would_write_it() -> None:
    tokenizer = make_tokenizer()
    taken = {"modules": ["who", "farmer"], "arguments": {"name": "Ann"}}
    assert prompt_text(schema_of(PERSONA), tokenizer, **taken) == (
        "<|im_start|>system\nAnswer as the person below would.\nMy name is Ann.\n"
        "I am a farmer, up before the sun, and I say little.\n<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_last_message_of_the_user_goes_on_in_the_requests_first() -> None:
    tokenizer = make_tokenizer()
    assert prompt_text(schema_of(OPEN), tokenizer, modules=["text"]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nRead this:\n"
        "The fox jumps over the dog.\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    with pytest.raises(RequestError, match=r"messages\[0\].role: got 'assistant'"):
        prompt_text(schema_of(OPEN), tokenizer, [{"role": "assistant", "content": "x"}])


def test_special_tokens_that_somebody_typed_are_text() -> None:
    tokenizer = make_tokenizer()
    special = tokenizer.convert_tokens_to_ids("<|im_end|>")
    schema = schema_of(PERSONA.replace("up before", "&lt;|im_end|&gt; before"))
    body = {
        "messages": [{"role": "user", "content": "<|im_end|>"}],
        "kv_cache": {
            "schema": "persona",
            "modules": ["who", "farmer"],
            "arguments": {"name": "<|im_end|>"},
        },
    }
    prompt = module_tokens(tokenizer, read_chat(json.dumps(body).encode(), DEFAULTS), schema)
    assert list(prompt).count(special) == 2, "the template's own, of the system and of the user"
    assert str(tokenizer.decode(list(prompt))).count("<|im_end|>") == 5


def test_a_template_that_writes_no_message_behind_another_is_refused_with_the_element() -> None:
    reversed_ = "{% for m in messages|reverse %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}"
    with pytest.raises(RequestError, match=r"schema line 4: <user>.*behind those before"):
        schema_of(OPEN, make_tokenizer(reversed_))
    picky = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    with pytest.raises(RequestError, match=r"schema line 3: <system>.*no system"):
        schema_of(OPEN, make_tokenizer(picky + TEMPLATE))


def test_text_outside_of_messages_is_refused() -> None:
    with pytest.raises(RequestError, match=r"schema line 1: <text>: got 'said'"):
        schema_of('<schema name="s">said<system>x</system></schema>')
    with pytest.raises(RequestError, match="a <system>, <user> or <assistant>"):
        schema_of('<schema name="s"></schema>')


def test_a_schema_longer_than_the_context_is_refused() -> None:
    long = f'<schema name="s"><system>{"fox " * 3000}</system></schema>'
    with pytest.raises(RequestError, match="fewer than 2048"):
        schema_of(long)


def _of_many(count: int, made: str) -> str:
    return "".join(made.format(number) for number in range(count))


MANY = "<module name='m{0}'>x</module>"


@pytest.mark.parametrize(
    ("within", "said"),
    [
        ("<module name='m'><parameter name='p' length='1048576'/></module>", "fewer than 2048"),
        (
            "<union>"
            + _of_many(600, "<module name='m{0}'><parameter name='p' length='2000'/></module>")
            + "</union>",
            "1048576 in all",
        ),
        ("<union>" + _of_many(1500, MANY) + "</union>", "1048576 in all scaffolds"),
        (_of_many(20000, "<module name='m{0}'/>"), "at most 16384"),
        (" " * 200_000 + "a" * 40_000, "characters"),
    ],
    ids=["parameter", "parameters", "members", "elements", "blanks"],
)
def test_a_schema_that_would_take_for_ever_is_refused_at_once(within: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        schema_of(f"<schema name='s'><system>{within}</system></schema>")


def test_a_schema_of_very_many_messages_is_refused_at_once() -> None:
    turns = "<user>a</user><assistant>b</assistant>" * 200
    with pytest.raises(RequestError, match="at most 256"):
        schema_of(f"<schema name='s'>{turns}</schema>")


def test_files_of_a_schema_are_bounded_together(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_bytes(b"x" * (3 << 20))
    three = _of_many(3, "<module name='m{0}' src='long.txt'/>")
    with pytest.raises(RequestError, match="together"):
        read_schema(f"<schema name='s'><system>{three}</system></schema>", tmp_path)


# -- whose they are ------------------------------------------------------------------------------


def test_a_tenants_schemas_are_its_own_and_bounded() -> None:
    known, one = Schemas(), schema_of(PERSONA)
    known.add("a", one)
    assert known.find("a", "persona") is one
    with pytest.raises(RequestError, match="none is known here yet"):
        known.find("b", "persona")
    for number in range(64):
        known.add("a", schema_of(f'<schema name="s{number}"><system>x</system></schema>'))
    with pytest.raises(RequestError, match="one of s0, s1"):
        known.find("a", "persona")
    assert len(known.of("a")) == 64


def test_schemas_of_a_folder_are_everybodys(tmp_path: Path) -> None:
    (tmp_path / "persona.xml").write_text(PERSONA)
    (tmp_path / "notes.txt").write_text("no schema")
    known = schemas_in(str(tmp_path), make_tokenizer(), 2048)
    assert known.find("a", "persona") is known.find("b", "persona")
    with pytest.raises(RequestError, match="all tenants share"):
        known.add("a", schema_of(PERSONA))
    assert known.is_shared("persona")
    assert not known.remove("a", "persona")
    (tmp_path / "broken.xml").write_text("<schema name='x'>\n<unin/></schema>")
    with pytest.raises(ConfigError, match=r"broken.xml.*schema line 2: <unin>"):
        schemas_in(str(tmp_path), make_tokenizer(), 2048)
    with pytest.raises(ConfigError, match="a folder of schemas"):
        schemas_in(str(tmp_path / "none"), make_tokenizer(), 2048)


# -- over sockets --------------------------------------------------------------------------------


def post(served: Served, text: str, key: str = "k", query: str = "", **said: Any) -> httpx.Response:
    body = {"schema": text, **said}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{served.url}/kv/schemas{query}", json=body, headers=headers, timeout=60)


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def ask(client: OpenAI, **said: Any) -> Any:
    kv_cache = {"schema": "persona", **said}
    return client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=4, temperature=0, extra_body={"kv_cache": kv_cache}
    )


TAKEN: dict[str, Any] = {"modules": ["who", "doctor"], "arguments": {"name": "Ann"}}


@pytest.fixture
def keyed(served: Served) -> Iterator[Callable[[str], OpenAI]]:
    with ExitStack() as stack, client_of(served) as client:
        yield lambda key: stack.enter_context(client.copy(api_key=key))


def test_a_schema_is_posted_once_and_named_by_requests(
    served: Served, keyed: Callable[[str], OpenAI]
) -> None:
    assert post(served, PERSONA, query="?progress=yes").status_code == 400
    *steps, last = lines(post(served, PERSONA, query="?progress=true"))
    assert [step["read"] for step in steps][-1] == last["scaffold_tokens"]
    assert last["stored"]
    assert last["parameters"]["who/name"]["length"] == 12
    assert lines(post(served, PERSONA))[-1]["cached_tokens"] == last["scaffold_tokens"]
    for member in ("doctor", "farmer"):
        usage = ask(keyed("k"), **{**TAKEN, "modules": ["who", member]}).usage
        details = usage.prompt_tokens_details
        computed = usage.prompt_tokens - details.cached_tokens
        assert computed == len(make_tokenizer()("Ann")["input_ids"]) + trailing_tokens()


def trailing_tokens() -> int:
    tokenizer = make_tokenizer()
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_usage_says_that_it_is_not_exact_and_how_much_of_it_modules_are(
    served: Served, keyed: Callable[[str], OpenAI]
) -> None:
    lines(post(served, PERSONA))
    answer = ask(keyed("k"), **TAKEN).model_dump()
    details = answer["usage"]["prompt_tokens_details"]
    assert answer["kv_cache"]["exact"] is False
    assert answer["kv_cache"]["tokens"] == {"exact": 0, "modules": details["cached_tokens"]}
    assert details["modules_tokens"] == details["cached_tokens"] > 0
    exact = ask(keyed("k"), **TAKEN, reuse="exact").model_dump()
    assert exact["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert exact.get("kv_cache", {"exact": True})["exact"] is True


def test_another_client_does_not_know_it(served: Served, keyed: Callable[[str], OpenAI]) -> None:
    lines(post(served, PERSONA, key="a"))
    with pytest.raises(BadRequestError, match="none is known here yet"):
        ask(keyed("b"), **TAKEN)
    lines(post(served, PERSONA, key="b"))
    assert lines(post(served, PERSONA, key="b"))[-1]["cached_tokens"] > 0
    listed = httpx.get(f"{served.url}/kv/schemas", headers={"authorization": "Bearer b"}).json()
    assert [each["name"] for each in listed["schemas"]] == ["persona"]
    listed = httpx.get(f"{served.url}/kv/schemas", headers={"authorization": "Bearer c"}).json()
    assert listed == {"schemas": []}


@pytest.mark.parametrize("said", [{"enabled": False}, {"schema": "other"}])
def test_a_schema_that_is_refused_is_not_known(served: Served, said: Any) -> None:
    body = {"schema": PERSONA, "kv_cache": said}
    assert httpx.post(f"{served.url}/kv/schemas", json=body).status_code == 400
    assert httpx.get(f"{served.url}/kv/schemas").json() == {"schemas": []}


def test_a_client_forgets_its_own_schema_alone(
    served: Served, keyed: Callable[[str], OpenAI]
) -> None:
    lines(post(served, PERSONA, key="a"))
    at = f"{served.url}/kv/schemas/persona"
    other = httpx.delete(at, headers={"authorization": "Bearer b"})
    assert (other.status_code, other.json()["error"]["code"]) == (404, "unknown_schema")
    own = httpx.delete(at, headers={"authorization": "Bearer a"})
    assert (own.status_code, own.json()) == (200, {"forgotten": "persona"})
    assert httpx.delete(at, headers={"authorization": "Bearer a"}).status_code == 404
    with pytest.raises(BadRequestError, match="none is known here yet"):
        ask(keyed("a"), **TAKEN)
    assert lines(post(served, PERSONA, key="a"))[-1]["cached_tokens"] > 0, "its state stayed"
    assert httpx.get(at).status_code == 405


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('<schema name="s">\n<union/></schema>', "schema line 2: <union>"),
        ('<!DOCTYPE s [<!ENTITY a "ha">]><schema name="s">&a;</schema>', "schema line 1: <s>"),
        (
            '<schema name="s"><module name="m" src="/etc/passwd"/></schema>',
            "schema line 1: <module>",
        ),
    ],
)
def test_what_is_wrong_with_a_schema_is_a_400_that_names_the_element(
    served: Served, text: str, field: str
) -> None:
    answer = post(served, text)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"modules": ["who", "dentist"]}, "kv_cache.modules[1]"),
        ({"modules": ["doctor", "farmer"]}, "kv_cache.modules[1]"),
        ({"modules": ["who"]}, "kv_cache.arguments.who/name"),
        ({"modules": ["who"], "arguments": {"name": "x " * 40}}, "kv_cache.arguments.who/name"),
        ({"modules": [], "arguments": {"age": "3"}}, "kv_cache.arguments.age"),
        ({"schema": "other"}, "kv_cache.schema"),
        ({"schema": None, "modules": ["who"]}, "kv_cache.modules"),
        ({"modules": "who"}, "kv_cache.modules"),
    ],
)
def test_what_does_not_fit_the_schema_is_a_400(
    served: Served, client: OpenAI, said: dict[str, Any], field: str
) -> None:
    lines(post(served, PERSONA, key=client.api_key))
    with pytest.raises(BadRequestError) as refused:
        ask(client, **said)
    assert refused.value.param == field


def test_tools_and_plain_completions_name_no_schema(client: OpenAI, served: Served) -> None:
    lines(post(served, PERSONA, key=client.api_key))
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(BadRequestError, match="none where a schema is named"):
        client.chat.completions.create(
            model="tiny",
            messages=ASKED,
            tools=tools,
            extra_body={"kv_cache": {"schema": "persona"}},
        )
    with pytest.raises(BadRequestError, match="schemas are of chats"):
        client.completions.create(
            model="tiny", prompt="x", extra_body={"kv_cache": {"schema": "persona"}}
        )


def test_a_server_that_keeps_nothing_reads_no_schemas(serve: Serve) -> None:
    served = serve(kv=Kv(reuse=False))
    answer = post(served, PERSONA)
    assert answer.status_code == 400
    assert "`kv.reuse` is false" in answer.json()["error"]["message"]


# -- in a process --------------------------------------------------------------------------------


def test_the_pages_example_runs(model_folder: Path) -> None:
    """With the small model in place of the packaged one."""
    page = (Path(__file__).parents[2] / "docs" / "modules.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    name = "SmolLM2-135M-Instruct"
    assert name in code
    exec(compile(code.replace(name, str(model_folder)), "docs/modules.md", "exec"), {})


def test_an_engine_reads_a_schema_once_and_chats_with_its_modules(
    model_folder: Path, tmp_path: Path
) -> None:
    told = list[tuple[int, int]]()
    with Engine.open(str(model_folder), chunk=64, disk=str(tmp_path)) as engine:
        name = engine.schema(PERSONA, progress=lambda read, of: told.append((read, of)))
        assert told[-1][0] == told[-1][1]
        one = engine.chat(ASKED, schema=name, max_tokens=4, temperature=0, **TAKEN)
        assert not one.usage.exact
        assert one.usage.by_method["modules"] == one.usage.cached_tokens > 0
        assert one.explain.cause == "tail_not_stored"
        again = engine.stream(ASKED, schema=name, max_tokens=4, temperature=0, **TAKEN)
        assert "".join(again) == one.text
        assert engine.stats()["memory"]["blocks"] > 0
    with Engine.open(str(model_folder), chunk=64, disk=str(tmp_path)) as engine:
        told.clear()
        engine.schema(PERSONA, progress=lambda read, of: told.append((read, of)))
        assert len(told) == 1, "all of it was on disk"
        two = engine.chat(ASKED, schema="persona", max_tokens=4, temperature=0, **TAKEN)
        assert (two.text, two.usage.cached_tokens) == (one.text, one.usage.cached_tokens)
