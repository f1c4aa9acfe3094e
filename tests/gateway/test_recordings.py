"""Real exchanges of real providers, replayed through the gateway: bytes stay what they were."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Got, Running, Stage
from gateway.upstream import Out, Seen
from thinkonce.outcome import Reason
from thinkonce.protocols.dialect import Dialect
from thinkonce.protocols.registry import DIALECTS
from thinkonce.request.storable import StoreRules, refusal

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "protocols"))
from recordings import needs_recordings, recordings

pytestmark = needs_recordings

Call = dict[str, Any]


@dataclass(frozen=True)
class Speech:
    """One dialect's recorded calls, and what an answer says: told by its events, and whole."""

    name: str
    told: Callable[[list[Any]], Any]
    whole: Callable[[Any], Any]

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.name]

    @property
    def calls(self) -> list[Call]:
        return [call for call in recordings(self.name) if "error" not in call["tags"]]

    @property
    def failed(self) -> list[Call]:
        return [call for call in recordings(self.name) if call["status"] >= 400]

    async def ask(self, gateway: Running, request: Any) -> Got:
        return await gateway.post(f"/v1/{self.name}", request)


# -- what answers say ----------------------------------------------------------------------------


def chat_told(events: list[Any]) -> Any:
    """Text and calls of each choice."""
    told = []
    for deltas in pieces(events, "delta").values():
        calls: dict[int, list[str]] = {}
        for delta in deltas:
            for part in delta.get("tool_calls") or ():
                name, arguments = part["function"].get("name"), part["function"].get("arguments")
                row = calls.setdefault(part["index"], ["", ""])
                row[0] += name or ""
                row[1] += arguments or ""
        text = "".join(delta.get("content") or "" for delta in deltas)
        told.append((text, [tuple(row) for row in calls.values()]))
    return told


def chat_whole(body: Any) -> Any:
    return [
        (
            message.get("content") or "",
            [
                (call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls") or []
            ],
        )
        for message in (choice["message"] for choice in body["choices"])
    ]


def text_told(events: list[Any]) -> Any:
    return ["".join(texts) for texts in pieces(events, "text").values()]


def text_whole(body: Any) -> Any:
    return [choice["text"] for choice in body["choices"]]


def pieces(events: list[Any], name: str) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for event in events:
        for choice in event["choices"] if event != "[DONE]" else ():
            found.setdefault(choice["index"], []).append(choice[name])
    return dict(sorted(found.items()))


def response_told(events: list[Any]) -> Any:
    return [e["item"] for e in events if e["type"] == "response.output_item.done"]


def response_whole(body: Any) -> Any:
    return body["output"]


def message_told(events: list[Any]) -> Any:
    """Each block: its type and all that its deltas add up to."""
    blocks: list[list[str]] = []
    for event in events:
        if event["type"] == "content_block_start":
            block = event["content_block"]
            blocks.append([block["type"], block.get("text") or block.get("thinking") or ""])
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            words = (delta.get(name) for name in ("text", "thinking", "partial_json"))
            blocks[event["index"]][1] += "".join(filter(None, words))
    return [(kind, json.loads(text or "{}") if "use" in kind else text) for kind, text in blocks]


def message_whole(body: Any) -> Any:
    return [
        (block["type"], block["input"])
        if "use" in block["type"]
        else (block["type"], block.get("text") or block.get("thinking") or "")
        for block in body["content"]
    ]


EMBEDDINGS = "/v1/embeddings"
SPEECHES = (
    Speech("chat/completions", chat_told, chat_whole),
    Speech("completions", text_told, text_whole),
    Speech("responses", response_told, response_whole),
    Speech("messages", message_told, message_whole),
)
every_speech = pytest.mark.parametrize("speech", SPEECHES, ids=lambda speech: speech.name)


def test_no_dialect_is_left_out() -> None:
    assert {speech.name for speech in SPEECHES} == set(DIALECTS)
    assert all(speech.calls for speech in SPEECHES)


# -- playing them --------------------------------------------------------------------------------


async def play(stage: Stage, gateway: Running, call: Call) -> bytes:
    """Make the provider answer as recorded, to a gateway that knows nothing; what it sends."""
    await gateway.post("/cache/purge", {"all": True})
    stage.upstream.seen.clear()
    body: bytes = call["response_body"].lstrip().encode()  # one was saved with a space before it
    kind = call["response_headers"].get("content-type", "application/json")

    async def answer(seen: Seen, out: Out) -> None:
        if not call["stream"]:
            await out.whole(body, call["status"], kind)
            return
        await out.begin_stream()
        for at in range(0, len(body), 61):  # borders fall anywhere
            await out.piece(body[at : at + 61])
        await out.end()

    stage.upstream.script = answer
    return body


def why_not_stored(speech: Speech, call: Call) -> Reason | None:
    dialect, body = speech.dialect, call["response_body"].lstrip().encode()
    asked = dialect.asks(call["request_body"])
    if asked.stateful:
        return Reason.STATEFUL
    if call["stream"]:
        recorder = dialect.recorder(asked, usage_asked=asked.include_usage, max_bytes=1 << 20)
        recorder.feed(body)
        recorder.end()
        gist = recorder.gist()
    else:
        gist = dialect.receive(asked, 200, "application/json", body).gist
    return refusal(asked, gist, dialect.finish_reasons, StoreRules())


def expected(reason: Reason | None) -> tuple[str, str]:
    """What `x-cache` says the first and the second time."""
    if reason is Reason.STATEFUL:
        return "BYPASS", "BYPASS"
    return "MISS", "HIT" if reason is None else "MISS"


@every_speech
async def test_unmarked_answers_are_the_providers_bytes_on_miss_and_hit(
    stage: Stage, speech: Speech
) -> None:
    gateway = await stage.gateway(gateway={"annotate_body": False})
    for call in speech.calls:
        body = await play(stage, gateway, call)
        miss, again = [await speech.ask(gateway, call["request_body"]) for _ in range(2)]
        assert stage.upstream.seen[0].json == call["request_body"]
        assert (miss.cache, again.cache) == expected(why_not_stored(speech, call))
        assert miss.body == body
        assert without_pings(again.body) == without_pings(body)


def without_pings(body: bytes) -> bytes:
    """Pings keep a connection alive that a hit does not need."""
    return body.replace(b'event: ping\ndata: {"type": "ping"}\n\n', b"")


@every_speech
async def test_marked_answers_differ_in_marks_id_and_time_only(
    stage: Stage, speech: Speech
) -> None:
    gateway = await stage.gateway()
    for call in speech.calls:
        await play(stage, gateway, call)
        first, second = [await speech.ask(gateway, call["request_body"]) for _ in range(2)]
        assert (first.cache, second.cache) == expected(why_not_stored(speech, call))
        before, after = (got.events if call["stream"] else [got.json] for got in (first, second))
        marks = [each["cache_hit"] for each in after if "cache_hit" in each]
        assert marks == [second.cache == "HIT"]
        before, after = (list(map(bare, filter(is_content, all_))) for all_ in (before, after))
        assert before == after


def is_content(event: Any) -> bool:
    return bool(event != "[DONE]" and event.get("type") != "ping")


def bare(event: dict[str, Any]) -> dict[str, Any]:
    """Without marks, and without the ids and times that a hit has anew: a response keeps its."""
    anew = () if event.get("object") == "response" else ("id", "created")
    dropped = ("cache_hit", "kv_cache", *anew)
    event = {name: value for name, value in event.items() if name not in dropped}
    for name in ("response", "message"):
        if isinstance(event.get(name), dict):
            event[name] = bare(event[name])
    return event


@every_speech
async def test_the_other_shape_holds_the_same_answer(stage: Stage, speech: Speech) -> None:
    gateway = await stage.gateway()
    stored = [call for call in speech.calls if why_not_stored(speech, call) is None]
    assert len(stored) >= (40 if speech.name == "chat/completions" else 2)
    for call in stored:
        await play(stage, gateway, call)
        request = dict(call["request_body"])
        await speech.ask(gateway, request)
        stream = not call["stream"]
        turned = {name: value for name, value in request.items() if name != "stream_options"}
        other = await speech.ask(gateway, turned | {"stream": stream})
        assert (other.cache, stage.upstream.calls) == ("HIT", 1)
        back = await speech.ask(gateway, request)
        streamed, whole = (other, back) if stream else (back, other)
        assert speech.told(streamed.events) == speech.whole(whole.json)


@every_speech
async def test_recorded_errors_pass_unchanged(stage: Stage, speech: Speech) -> None:
    gateway = await stage.gateway()
    for call in speech.failed:
        body = await play(stage, gateway, call)
        for calls in (1, 2):
            got = await speech.ask(gateway, call["request_body"])
            assert (got.status, got.body, stage.upstream.calls) == (call["status"], body, calls)


# -- embeddings: no dialect, their answers are vectors ---------------------------------------------


async def test_recorded_embeddings_are_the_providers_bytes_and_then_the_same_vectors(
    stage: Stage,
) -> None:
    gateway = await stage.gateway(gateway={"annotate_body": False})
    calls = recordings("embeddings")
    assert len(calls) >= 5
    for call in calls:
        body = await play(stage, gateway, call)
        inputs = call["request_body"]["input"]
        if len(set(map(repr, inputs))) < len(inputs) and isinstance(inputs, list):
            continue  # equal inputs are asked for once: the recorded answer has too many
        first, second = [await gateway.post(EMBEDDINGS, call["request_body"]) for _ in range(2)]
        assert first.status == call["status"]
        if call["status"] != 200:
            assert first.body == second.body == body
            continue
        assert (first.cache, second.cache) == ("MISS", "HIT")
        assert first.body == body
        assert vectors(second.json) == vectors(json.loads(body))


def vectors(answer: Any) -> list[Any]:
    return [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])]
