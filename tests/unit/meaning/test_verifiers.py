"""The verifiers themselves: cross-encoders from folders, and a chat model behind an API."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import isfinite
from pathlib import Path
from typing import Any, cast, get_type_hints

import msgspec
import pytest

from thinkonce.errors import ConfigError
from thinkonce.meaning.verdict.calibration import Platt, Tally
from thinkonce.meaning.verdict.verifier import (
    ACCEPTS,
    CALIBRATION,
    INCLUDED,
    KINDS,
    MODEL,
    TOKENIZER,
    Scale,
    VerifierError,
    installed,
    open_verifier,
)
from thinkonce.meaning.verifiers.chat import NO, YES
from thinkonce.settings.semantic import Semantic
from tiny_verifier import WORDS, write_folder


def opened(folder: Path) -> Any:
    found = open_verifier(str(folder))
    assert found is not None
    return found


def test_a_folder_with_onnx_is_read_whole_and_named_by_what_is_in_it(tmp_path: Path) -> None:
    verifier = opened(write_folder(tmp_path / "mine"))
    assert verifier.logit("lost card", "cash order") == 7 + 5 + 3 + 4 + 6
    assert verifier.name.startswith("mine-")
    assert opened(tmp_path / "mine").name == verifier.name
    (tmp_path / "mine" / CALIBRATION).write_bytes(msgspec.json.encode({"en": Scale(Platt(1, 0))}))
    assert opened(tmp_path / "mine").name != verifier.name


def test_of_two_classes_the_second_is_yes(tmp_path: Path) -> None:
    assert opened(write_folder(tmp_path, classes=2)).logit("card", "card") == 2 * 13 - 13


def test_a_model_without_token_types_is_not_given_any(tmp_path: Path) -> None:
    assert opened(write_folder(tmp_path, inputs=2)).logit("卡 丢", "card") == 7 + 7 + 8 + 3


def test_a_pair_longer_than_was_trained_on_is_not_judged(tmp_path: Path) -> None:
    verifier = opened(write_folder(tmp_path))
    assert verifier.logit("card " * 62, "card " * 62) is not None
    assert verifier.logit("card " * 63, "card " * 62) is None


def test_what_a_number_is_worth_is_read_from_beside_the_weights(tmp_path: Path) -> None:
    scale = Scale(Platt(2.0, -1.0), 0.3, (Tally(4.0, 300, 1), Tally(3.0, 400, 9)), promised=True)
    write_folder(tmp_path)
    (tmp_path / CALIBRATION).write_bytes(msgspec.json.encode({"use-zh": scale}))
    assert opened(tmp_path).scales == {"use-zh": scale}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / MODEL).write_bytes(b"torn"), "that load"),
        (lambda folder: (folder / TOKENIZER).unlink(), "that load"),
        (lambda folder: (folder / CALIBRATION).write_text('{"en": 3}'), "a whole file"),
        (lambda folder: write_folder(folder, classes=3), "3 classes"),
        (lambda folder: (folder / MODEL).unlink(), "model.safetensors"),
    ],
)
def test_a_folder_that_cannot_work_is_refused_at_start(
    tmp_path: Path, spoil: Any, says: str
) -> None:
    spoil(write_folder(tmp_path))
    with pytest.raises(ConfigError, match=says):
        open_verifier(str(tmp_path))


def ends(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_verifier_and_graph_index_live_in_one_process_in_either_order(tmp_path: Path) -> None:
    """Loaded in the other order their native libraries end the process."""
    pytest.importorskip("usearch")
    folder = write_folder(tmp_path)
    index = "import thinkonce.meaning.index.graph; "
    opening = "from thinkonce.meaning.verdict.verifier import open_verifier"
    verifier = f"{opening}; open_verifier({str(folder)!r})"
    for program in (index + verifier, verifier + "; " + index):
        ended = ends(program)
        assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_where_the_process_has_usearch_already_the_verifier_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    folder = str(write_folder(tmp_path / "verifier"))
    begins = "import usearch.index; from thinkonce.meaning.verdict.verifier import open_verifier; "
    ended = ends(begins + f"open_verifier({folder!r})")
    assert "ConfigError" in ended.stderr
    assert "before usearch" in ended.stderr
    shipped = f"from pathlib import Path; print(open_verifier(data=Path({str(tmp_path)!r})))"
    assert ends(begins + shipped).stdout == "None\n"


def test_the_settings_say_what_the_table_of_verifiers_accepts() -> None:
    (meta,) = get_type_hints(Semantic, include_extras=True)["verifier"].__metadata__
    assert meta.extra["accepts"] == ACCEPTS


@pytest.mark.parametrize(
    ("files", "kind"), [((MODEL, TOKENIZER), 3), (("config.json", "model.safetensors"), 4)]
)
def test_a_folder_is_claimed_by_what_lies_in_it(
    tmp_path: Path, files: tuple[str, ...], kind: int
) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert next(each for each in KINDS if each.claims(str(tmp_path))) is KINDS[kind]


def test_a_word_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"semantic\.verifier='nothing'"):
        open_verifier("nothing")


def test_what_ships_is_found_in_the_data_folder_and_its_absence_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkonce.meaning.verdict.verifier.WEIGHTS", tmp_path / "nowhere")
    assert open_verifier(data=tmp_path) is None
    write_folder(tmp_path / "verifier")
    found = open_verifier(data=tmp_path)
    assert found is not None
    assert found.logit("card", "card") == 13
    assert open_verifier("off", data=tmp_path) is None


@pytest.mark.slow  # imports torch
def test_a_model_as_transformers_saves_it_is_read_too(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=4 + len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_labels=1,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    verifier = opened(tmp_path)
    found = verifier.logit("lost card", "cash order")
    assert isfinite(found)
    assert verifier.logit("lost card", "cash order") == found
    assert verifier.logit("lost card", "lost card") != found
    assert verifier.logit("card " * 100, "card " * 100) is None


class Chatting(ThreadingHTTPServer):
    """Says what it is told to say."""

    daemon_threads = True
    said: str | None = "yes"
    status = 200
    raw: bytes | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[dict[str, str], Any]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Chatting

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(({"path": self.path, **dict(self.headers.items())}, body))
        choices = [{"message": {"role": "assistant", "content": self.server.said}}]
        answer = self.server.raw or json.dumps({"choices": choices}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """A test's output is its own."""


@contextmanager
def chatting() -> Iterator[tuple[Chatting, Any]]:
    with Chatting() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1#judge"
        with closing(cast(Any, open_verifier(url, api_key="sk-1"))) as verifier:
            yield server, verifier
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("said", "logit"), [("yes", YES), ("No.", NO), (" YES!\n", YES), ("**no**", NO)]
)
def test_a_chat_model_says_yes_or_no(said: str, logit: float) -> None:
    with chatting() as (server, verifier):
        server.said = said
        assert verifier.logit("lost my card", 'say "yes"') == logit
        headers, body = server.seen[0]
    assert headers["path"] == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer sk-1"
    assert (body["model"], body["temperature"]) == ("judge", 0)
    asked = json.loads(body["messages"][1]["content"])
    assert asked == {"asked": "lost my card", "stored": 'say "yes"'}, "texts are data"


@pytest.mark.parametrize("said", ["yes and no", "I think so", "", None, "yesterday", "是"])
def test_any_other_answer_is_none_at_all(said: str | None) -> None:
    with chatting() as (server, verifier):
        server.said = said
        with pytest.raises(VerifierError, match="neither yes nor no"):
            verifier.logit("a", "b")


@pytest.mark.parametrize(
    ("status", "raw"), [(500, b"{}"), (200, b"oops"), (200, b'{"choices": 3}'), (401, b"")]
)
def test_a_server_that_fails_judges_nothing(status: int, raw: bytes) -> None:
    with chatting() as (server, verifier):
        server.status, server.raw = status, raw or None
        with pytest.raises(VerifierError):
            verifier.logit("a", "b")


def test_an_api_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="the model behind #"):
        open_verifier("http://127.0.0.1:1/v1")


def test_two_of_one_folder_are_one_verifier(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one")
    alone = opened(folder)
    write_folder(folder / "other", classes=2)  # of two classes the logit is the sum again
    (folder / "joined.json").write_text('{"folder": "other", "share": 0.5}', encoding="utf-8")
    both = opened(folder)
    asked = WORDS[-1]
    assert both.logit(asked, asked) == 1.5 * alone.logit(asked, asked)
    assert both.name != alone.name
    assert both.logit("word " * 200, asked) is None
    both.close()


@pytest.mark.parametrize(
    "said", ["{", '{"folder": "other"}', '{"folder": "../one", "share": 1}', '{"share": "much"}']
)
def test_a_second_verifier_that_is_badly_named_is_an_error(tmp_path: Path, said: str) -> None:
    folder = write_folder(tmp_path / "one")
    (folder / "joined.json").write_text(said, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"joined\.json"):
        opened(folder)


@pytest.mark.parametrize("name", INCLUDED)
def test_what_ships_tells_near_misses_apart(name: str) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `semantic` is not installed")
    if installed(name) is None:
        pytest.skip("its weights come with a release; this source has none")
    verifier = open_verifier(name)
    assert verifier is not None, "weights that are there can be used"
    for asked, same, other in (
        ("How do I reset my password?", "I forgot my password, how can I change it?",
         "How do I reset my phone?"),
        ("怎么重置密码？", "忘记密码了怎么修改", "怎么重置手机？"),
    ):  # fmt: skip
        right, wrong = verifier.logit(asked, same), verifier.logit(asked, other)
        assert right is not None
        assert wrong is not None
        assert right > wrong
    assert {"en", "zh", "use-en", "use-zh"} <= set(verifier.scales)
    for text in ("", " ", "🙂", "x" * 1000, "你" * 400):
        verifier.logit(text, text)
