"""Model servers killed as they answer: what has a row is loaded by the next, nothing is wrong."""

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from faults.kv_servers import CHUNK
from kv.small_model import make_network, make_tokenizer
from thinkonce.kv.disk.rows import Kind, read_rows

ROUNDS, CLIENTS, TOKENS = 50, 3, 24
SCRIPT = Path(__file__).with_name("kv_servers.py")


class Servers:
    def __init__(self, process):
        self._process = process
        assert process.stdout.readline() == "loaded\n"

    @contextmanager
    def one(self, store="-"):
        """Its address and process id; it ends with SIGKILL."""
        self._process.stdin.write(f"{store}\n")
        self._process.stdin.flush()
        _, number, url = self._process.stdout.readline().split()
        try:
            yield url, int(number)
        finally:
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)


@pytest.fixture
def servers(tmp_path):
    tokenizer = make_tokenizer()
    make_network(len(tokenizer)).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path / "tiny")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        text=True,
    ) as process:
        yield Servers(process)
        process.kill()


def prompt(number):
    """Some blocks and ten tokens; no two share any."""
    chance = random.Random(number)
    return [20 + chance.randrange(300) for _ in range(CHUNK * chance.randrange(1, 9) + 10)]


def ask(client, number, **kv_cache):
    """The answer's text, and how many blocks were loaded for it."""
    body = {"model": "tiny", "prompt": prompt(number), "max_tokens": TOKENS, "temperature": 0}
    got = client.post("/completions", json={**body, "logprobs": 1, "kv_cache": kv_cache})
    assert got.status_code == 200, got.text
    told = got.json()
    cached = told["usage"]["prompt_tokens_details"]["cached_tokens"]
    return told["choices"][0], cached // CHUNK


def on_disk(folder):
    """Blocks that have a row, whatever the process did afterwards."""
    found = set()
    for file in folder.rglob("*.rows"):
        with file.open("rb") as opened:
            rows = read_rows(opened.fileno())
        assert not (rows["kind"] == Kind.GONE).any(), "nothing was evicted or damaged"
        found.update(rows["id"][rows["kind"] == Kind.LIVE].tolist())
    return len(found)


def killed(url, process, first, after):
    """Ask for new prompts until the server is killed, `after` seconds from now; what was asked."""
    numbers, lock = iter(range(first, first + 10_000)), threading.Lock()
    asked = []

    def work():
        with httpx.Client(base_url=url, timeout=30) as client, suppress(httpx.TransportError):
            while True:
                with lock:
                    asked.append(number := next(numbers))
                ask(client, number)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    threading.Event().wait(after)
    os.kill(process, signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    return asked


def run(servers, folder, rounds):
    """How many prompts were asked for, and how many blocks came back."""
    chance, known, touched = random.Random(11), {}, []
    with servers.one() as (cold_url, _), httpx.Client(base_url=cold_url, timeout=60) as cold:
        for each in range(rounds + 1):
            rows = on_disk(folder) if folder.exists() else 0
            with servers.one(folder) as (url, process):
                with httpx.Client(base_url=url, timeout=60) as client:
                    for number in touched if each < rounds else sorted(known):
                        said, known[number] = ask(client, number)
                        assert said == ask(cold, number, enabled=False)[0], f"prompt {number}"
                assert sum(known.values()) == rows, (
                    f"round {each}: a block with a row was not loaded"
                )
                if each < rounds:
                    new = killed(url, process, 1000 * each, chance.uniform(0.02, 0.8))
                    # What of these was missing is there by now, or will be.
                    lacking = [n for n in touched if known[n] < len(prompt(n)) // CHUNK]
                    touched = [*lacking, *new]
                    known.update(dict.fromkeys(new, 0))
    return len(known), sum(known.values())


@pytest.mark.slow
def test_what_has_a_row_outlives_fifty_kills_of_a_server_that_answers(servers, tmp_path):
    prompts, blocks = run(servers, tmp_path / "kv", ROUNDS)
    print(f"{prompts} prompts asked for, {blocks} blocks loaded after kills")
    assert blocks > ROUNDS
