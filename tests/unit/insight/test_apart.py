"""What keeps stored requests apart: the field in which those that are otherwise equal differ."""

from __future__ import annotations

from typing import Any

from thinkonce.entry import Entry, Meta
from thinkonce.insight.apart import advice, apart, sentences
from thinkonce.request.kept import KeptRequest, pack


def kept(*contents: str, tenant: str = "t", sample: int = 0, **fields: Any) -> Entry:
    """A chat request of a system message and what was asked."""
    roles = ("system", "user")[-len(contents) :]
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
    body = {"model": "m", "messages": messages, **fields}
    request = KeptRequest("chat/completions", "p", tenant, identity=body, sample=sample)
    return Entry(None, b"", Meta(), b"k" * 32, request=pack(request.parts()))


def test_the_only_field_that_differs_is_named_with_its_share() -> None:
    entries = [kept("be kind", "hi", user=f"user-{number}") for number in range(6)]
    entries += [kept("be kind", f"question {number}") for number in range(4)]
    told = apart(entries)
    assert (told.compared, told.only_in) == (10, {"user": 0.6})
    (line,) = sentences(told)
    assert line == "60% of 10 stored requests differ from another only in user"


def test_a_field_that_only_one_of_them_has_counts_for_both() -> None:
    assert apart([kept("hi"), kept("hi", seed=1)]).only_in == {"seed": 1.0}


def test_a_date_in_the_system_message_is_named_and_another_question_is_not() -> None:
    dated = [kept(f"today is 2026-11-{day}", "opening hours?") for day in range(10, 14)]
    assert apart(dated).only_in == {"messages[0].content": 1.0}
    assert apart([kept("be kind", f"question {number}") for number in range(4)]).only_in == {}
    text = {"endpoint": "completions", "pool": "p", "tenant": "t"}
    prompts = [KeptRequest(**text, identity={"prompt": word}) for word in ("one", "two")]
    entries = [Entry(None, b"", Meta(), b"k" * 32, request=pack(one.parts())) for one in prompts]
    assert apart(entries).only_in == {}


def test_two_differences_are_not_one_and_samples_of_one_request_are_none() -> None:
    assert apart([kept("hi", user="a"), kept("hi", user="b", tenant="u")]).only_in == {}
    told = apart([kept("hi", sample=0), kept("hi", sample=1)])
    assert (told.compared, told.only_in) == (1, {})


def test_entries_that_keep_no_request_are_passed_over() -> None:
    told = apart([Entry(None, b"", Meta(), b"k" * 32)])
    assert (told.compared, told.only_in, list(sentences(told))) == (0, {}, [])


def test_what_to_do_about_a_field_would_work_for_that_field() -> None:
    def todo(*entries: Entry) -> list[str]:
        return [what for _, what in advice(apart(entries))]

    assert todo(kept("hi"), kept("hi", user="u")) == [
        "leave user out of requests, or name it in [cache] ignore_fields, "
        "if answers do not depend on it"
    ]
    (tenant,) = todo(kept("hi", tenant="a"), kept("hi", tenant="b"))
    assert "[groups]" in tenant
    assert "ignore_fields" not in tenant
    (system,) = todo(kept("Monday", "hi"), kept("Friday", "hi"))
    assert system.startswith("leave out of that text what changes")
