"""LangChain's clients, LiteLLM's and curl at a running gateway: every endpoint, both shapes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from gateway.conftest import Running, Stage
from gateway.upstream import Upstream
from gateway.whole_provider import VECTOR, provide


@pytest.fixture
def provider(upstream: Upstream) -> Upstream:
    upstream.script = provide
    return upstream


LANGCHAIN = """
import asyncio, json, sys
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

base, known = sys.argv[1], {"model": "m", "api_key": "k", "max_retries": 0}
gpt = known | {"base_url": base + "/v1"}
models = [
    ChatOpenAI(**gpt),
    ChatOpenAI(**gpt, use_responses_api=True),
    ChatAnthropic(**known, base_url=base, max_tokens=9),
    OpenAI(**gpt),
]
said = lambda piece: piece if isinstance(piece, str) else str(piece.text)

async def on_loop():
    for model in models:
        whole = said(await model.ainvoke("hi"))
        print(json.dumps([whole, "".join([said(piece) async for piece in model.astream("hi")])]))

for model in models:
    print(json.dumps([said(model.invoke("hi")), "".join(map(said, model.stream("hi")))]))
asyncio.run(on_loop())
embed = OpenAIEmbeddings(**gpt, check_embedding_ctx_length=False)
print(json.dumps([*embed.embed_documents(["a", "b"]), embed.embed_query("b")]))
"""


@pytest.mark.slow  # importing LangChain's clients takes seconds
async def test_langchains_clients_drive_every_endpoint(
    stage: Stage, gateway: Running, provider: Upstream
) -> None:
    *models, vectors = await said_by(LANGCHAIN, gateway)
    assert models == [["hello"] * 2] * 8
    assert vectors == [VECTOR] * 3
    paths = [seen.path.removeprefix("/v1/") for seen in provider.seen]
    # LangChain's text model sends a list of one prompt, and a prompt where it streams.
    asked_once = ["chat/completions", "responses", "messages"]
    assert paths == [*asked_once, "completions", "completions", "embeddings"]


LITELLM = """
import json, sys
import litellm
base, asked = sys.argv[1], {"messages": [{"role": "user", "content": "hi"}]}
known = {"api_base": base + "/v1", "api_key": "k"}
for _ in range(2):
    whole = litellm.completion(model="openai/m", **asked, **known)
    pieces = litellm.completion(model="openai/m", stream=True, **asked, **known)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    claude = litellm.completion(
        model="anthropic/m", max_tokens=9, api_base=base, api_key="k", **asked)
    prompt = litellm.text_completion(model="text-completion-openai/m", prompt="hi", **known)
    vector = litellm.embedding(model="openai/m", input=["a"], **known)
    answer = litellm.responses(model="openai/m", input="hi", **known)
    print(json.dumps([
        whole.choices[0].message.content, text, claude.choices[0].message.content,
        prompt.choices[0].text, vector.data[0]["embedding"], answer.output[0].content[0].text]))
"""


@pytest.mark.slow  # importing LiteLLM takes seconds
async def test_litellms_client_drives_every_endpoint(
    stage: Stage, gateway: Running, provider: Upstream
) -> None:
    first, second = await said_by(LITELLM, gateway)
    assert first == second == ["hello", "hello", "hello", "hello", VECTOR, "hello"]
    assert provider.calls == 5, "a call for each endpoint; the stream is the whole answer's"


async def said_by(script: str, gateway: Running) -> list[Any]:
    """The lines of JSON that a client's own process prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, gateway.url],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "["]


CURLED = {
    "chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi"},
    "messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    "embeddings": {"input": "hi"},
}


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
@pytest.mark.parametrize("path", CURLED)
async def test_curl_drives_every_endpoint(
    stage: Stage, gateway: Running, provider: Upstream, path: str
) -> None:
    shapes = [False] if path == "embeddings" else [False, True]
    for number, streaming in enumerate(shapes * 2):
        body = {"model": "m"} | CURLED[path] | ({"stream": True} if streaming else {})
        head, text = await curl(gateway.url + "/v1/" + path, "-d", json.dumps(body))
        assert f"x-cache: {'HIT' if number else 'MISS'}" in head
        assert ("event-stream" in head) is streaming
        assert '"cache_hit":' in text.replace(" ", "")
    assert provider.calls == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
async def test_curl_lists_models(stage: Stage, gateway: Running, provider: Upstream) -> None:
    head, text = await curl(gateway.url + "/v1/models")
    assert ("x-cache: BYPASS" in head, json.loads(text)["data"][0]["id"]) == (True, "m")


async def curl(url: str, *more: str) -> tuple[str, str]:
    """Head and body."""
    options = ["-sS", "-N", "-i", "--max-time", "20", "-H", "content-type: application/json"]
    process = await asyncio.create_subprocess_exec(
        "curl", *options, url, *more, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    head, _, body = out.decode().partition("\r\n\r\n")
    return head, body
