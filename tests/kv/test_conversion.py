"""A packaged model is converted once, wholly or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from small_gguf import packaged_as, write_gguf
from transformers import LlamaForCausalLM

from thinkonce.errors import ConfigError
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.conversion import convert, converted
from thinkonce.kv.weights.model import load
from thinkonce.kv.weights.packaged import PackagedModel


class Packaged:
    """A packaged model, its file, and the folder it is converted into."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "thinkonce_small_model" / "small.gguf"
        self.source.parent.mkdir()
        self.network: LlamaForCausalLM = write_gguf(self.source)
        self.model: PackagedModel = packaged_as(self.source)
        self.folder = folder / "data" / "models"
        self.heard: list[str] = []

    def convert(self) -> Path:
        return convert(self.model, self.source, self.folder, self.hear)

    def converted(self) -> Path | None:
        return converted(self.model, self.folder)

    def hear(self, what: str, fraction: float | None) -> None:
        self.heard.append(what)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packaged:
    small = Packaged(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(packaged, "MODELS", (small.model,))
    return small


def test_a_converted_model_has_the_original_s_logits_and_its_publisher_s_defaults(
    small: Packaged,
) -> None:
    model = load("small-model", progress=small.hear)
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.inference_mode():
        assert torch.equal(model.network(ids).logits, small.network(ids).logits)
    assert (model.name, model.temperature, model.top_p) == ("Small-Model", 0.5, 0.75)
    assert model.end_ids == {2}
    assert model.context_tokens == 2048
    assert "converting Small-Model" in small.heard


def test_the_second_start_converts_nothing(small: Packaged) -> None:
    place = small.convert()
    small.heard.clear()
    assert small.convert() == place
    assert small.heard == []


def test_a_model_stays_usable_once_its_package_is_gone(small: Packaged) -> None:
    small.convert()
    small.source.unlink()
    assert load("Small-Model").name == "Small-Model"


def test_a_missing_package_says_how_to_get_it(small: Packaged) -> None:
    small.source.unlink()
    with pytest.raises(ConfigError, match="thinkonce model install Small-Model"):
        load("Small-Model")


FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "generation_config.json",
    "conversion.json",
)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_cut_or_missing_file_is_found_and_converted_anew(
    small: Packaged, name: str
) -> None:
    place = small.convert()
    whole = (place / name).read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for wrong in (flipped, whole[:-1], b"", None):
        if wrong is None:
            (place / name).unlink()
        else:
            (place / name).write_bytes(wrong)
        assert small.converted() is None, f"{name} as {wrong and len(wrong)} bytes"
        assert small.convert() == place
        assert (place / name).read_bytes() == whole
    assert sorted(path.name for path in small.folder.iterdir()) == [".lock", place.name]


def test_a_file_that_does_not_belong_spoils_the_conversion(small: Packaged) -> None:
    (small.convert() / "adapter_config.json").write_text("{}")
    assert small.converted() is None, "transformers would load it"


def test_a_source_that_is_not_the_pinned_file_is_refused(small: Packaged) -> None:
    with small.source.open("ab") as file:
        file.write(b"!")
    with pytest.raises(ConfigError, match=r"SHA-256 of small\.gguf"):
        small.convert()
    assert small.converted() is None


def test_two_at_once_convert_once(small: Packaged) -> None:
    threads = [threading.Thread(target=small.convert) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert small.converted()
    assert small.heard.count("reading small.gguf") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be made read-only there")
def test_where_nothing_can_be_written_the_model_is_read_from_its_package(
    small: Packaged, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = small.folder.parent / "a-file"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("no folder can be made in here")
    monkeypatch.setenv("THINKONCE_DATA_DIR", str(blocked))
    model = load("Small-Model")
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.inference_mode():
        assert torch.equal(model.network(ids).logits, small.network(ids).logits)
    assert "reading it anew" in caplog.text


KILLED = """
import os, signal, sys
from pathlib import Path
import msgspec
from thinkonce.kv.weights.conversion import convert, converted
from thinkonce.kv.weights.packaged import PackagedModel

model = msgspec.json.decode(sys.argv[1], type=PackagedModel)
source, folder = Path(sys.argv[2]), Path(sys.argv[3])

def die_at(moment):
    left = iter(range(moment, -2, -1))
    def report(what, fraction):
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return report

def child(moment):
    if converted(model, folder) is not None:
        os._exit(3)
    convert(model, source, folder, die_at(moment))
    os._exit(0 if converted(model, folder) else 4)

# The parent itself converts nothing: a process that has worker threads cannot be forked well.
ends = []
while not ends or ends[-1] == -signal.SIGKILL:
    number = os.fork() or child(len(ends))
    ends.append(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))
print(msgspec.json.encode([ends, sorted(path.name for path in folder.iterdir())]).decode())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_conversion_killed_at_any_report_leaves_nothing_that_is_used(small: Packaged) -> None:
    encoded = msgspec.json.encode(small.model).decode()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, encoded, str(small.source), str(small.folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends, names = json.loads(done.stdout)
    assert ends == [-signal.SIGKILL] * (len(ends) - 1) + [0], "3: a partial one was believed"
    assert len(ends) > 20
    assert names == [".lock", f"Small-Model-{small.model.file_sha256[:12]}"], "leftovers are gone"


def test_the_digest_of_another_source_is_another_conversion(small: Packaged) -> None:
    small.convert()
    assert converted(replace(small.model, file_sha256="1" * 64), small.folder) is None
