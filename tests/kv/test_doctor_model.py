"""`doctor` about a model server: its files, memory, cores, folder, clients and settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from thinkonce.cli import examine_model
from thinkonce.cli.app import main
from thinkonce.cli.examine_kv import model_server
from thinkonce.cli.resources import Cores, cores, memory_bytes
from thinkonce.errors import ConfigError
from thinkonce.kv.disk.folder import kept_key
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.weights.model import Model
from thinkonce.kv.weights.on_disk import directory_of, model_files
from thinkonce.settings import Sources

Capture = pytest.CaptureFixture[str]
MIB, GIB = 2**20, 2**30
KEY = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture
def copied(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def test_what_a_token_takes_is_told_without_loading(model: Model, model_folder: Path) -> None:
    files, shape = model_files(model_folder), shape_of(model.network)
    assert files.bytes_a_token("auto") == shape.bytes_a_token
    assert files.bytes_a_token("bfloat16") == shape.bytes_a_token // 2
    assert files.parameters == sum(each.numel() for each in model.network.parameters())
    assert (files.family, files.context_tokens) == ("llama", model.context_tokens)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def part_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    parts = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_bytes(msgspec.json.encode(parts))


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "a directory that holds config.json and weights"),
        (lambda f: (f / "config.json").write_text("{"), r"a config.json that can be read \("),
        (lambda f: (f / "model.safetensors").unlink(), "weights; there is none of model.saf"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 9), r"can be read \(model.saf"),
        (cut, r"whole; model\.safetensors has \d+ of \d+ bytes"),
        (part_missing, r"complete; model-2\.safetensors is missing"),
        (no_tokenizer, "a tokenizer; there is none of"),
    ],
)
def test_half_a_model_is_named_before_it_is_loaded(
    copied: Path, harm: Callable[[Path], object], said: str
) -> None:
    model_files(copied)
    harm(copied)
    with pytest.raises(ConfigError, match=said):
        model_files(copied)


def test_a_model_of_the_hub_s_cache_is_found_by_its_name(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert directory_of("owner/name") is None
    cached = tmp_path / "hub" / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("c0ffee\n")
    assert directory_of("owner/name") is None
    shutil.copytree(copied, cached / "snapshots" / "c0ffee")
    assert directory_of("owner/name") == cached / "snapshots" / "c0ffee"
    assert directory_of("name") is directory_of("../../etc/passwd") is None
    assert directory_of(str(copied)) == copied


def test_a_container_has_what_it_was_given(tmp_path: Path) -> None:
    whole, seen = memory_bytes(tmp_path), cores(tmp_path).seen
    assert whole is not None
    for memory, cpu in (("max", "max 100000"), ("", "")):
        (tmp_path / "memory.max").write_text(memory)
        (tmp_path / "cpu.max").write_text(cpu)
        assert (memory_bytes(tmp_path), cores(tmp_path)) == (whole, Cores(seen, seen))
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert (memory_bytes(tmp_path), cores(tmp_path)) == (MIB, Cores(seen, 0.5))


Found = dict[str, list[tuple[str, str, str]]]


class Doctor:
    """Looks at settings in a folder of its own, on a machine of 8 GiB and four cores."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "thinkonce.toml"

    def __call__(self, written: str) -> Found:
        self.file.write_text(written)
        found: Found = {}
        for each in model_server(Sources(config=self.file).load()):
            found.setdefault(each.name, []).append((each.grade, each.says, each.todo))
        return found


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examine_model, "memory_bytes", lambda: 8 * GIB)
    monkeypatch.setattr(examine_model, "cores", lambda: Cores(4, 2.0))
    return Doctor(tmp_path)


def test_a_server_that_can_work_is_told_with_its_numbers(doctor: Doctor, copied: Path) -> None:
    written = '[local]\nmodel = "model"\nthreads = 2\n[kv]\nstore = "kv"\nmemory = "100MiB"\n'
    clients = f'[clients.shop]\nkey_sha256 = "{KEY}"\n'
    found = doctor(written + clients)
    assert found["model"][0][:2] == ("ok", f"directory model, {size_of(copied)} of weights")
    tokens = 100 * MIB // model_files(copied).bytes_a_token("auto")
    ((grade, says, todo),) = found["kv memory"]
    assert (grade, todo) == ("ok", "")
    assert says.startswith(f"100MiB, {tokens:,} tokens; the model and its process take 6")
    assert found["threads"] == [("ok", "2 for 2 cores", "")]
    assert found["kv clients"] == [("ok", "1 in [clients] may ask: shop", "")]
    assert found["kv store"][0][:2] == ("note", "kv is not there yet; it is made when first used")
    assert not (doctor.folder / "kv").exists()


def size_of(folder: Path) -> str:
    return f"{model_files(folder).parameters * 4 / 1024:.3g}KiB"


@pytest.mark.parametrize(
    ("written", "name", "grade", "said"),
    [
        ('[kv]\nmemory = "8GiB"\n', "kv memory", "fail", "the system would end it when full"),
        ('[kv]\nmemory = "7GiB"\n', "kv memory", "note", "little is left for others"),
        ('[kv]\nmemory = "32kB"\n', "kv memory", "fail", "less than one block of 128 tokens"),
        ('[kv]\nmemory = "130kB"\n', "kv memory", "note", "longer prompts are refused"),
        ("", "threads", "note", "4 for 2 cores: they wait for each other"),
        ('[kv]\nstore = "thinkonce.toml"\n', "kv store", "fail", "it is no folder"),
        ('[kv]\nstore = "kv"\ndisk = "9000TB"\n', "kv store", "note", "it may fill that"),
        ("[kv]\nslo = 2\n", "kv settings", "note", "slo does nothing with policy = lru"),
        ('[kv]\npolicy = "tail"\n', "kv settings", "note", "policy = tail has no target"),
        ('[kv]\ndisk = "1GiB"\n', "kv settings", "note", "disk does nothing without a folder"),
        ('[kv]\nreuse = false\ncodec = "int8"\n', "kv settings", "note", "codec do nothing"),
        ('[kv]\npublic = ["absent.json"]\n', "kv public", "fail", "absent.json cannot be read"),
        ('[kv]\npublic = ["both.json"]\n', "kv public", "fail", "neither messages nor prompt"),
        ('[kv]\nschemas = "absent"\n', "kv schemas", "fail", "absent is no folder"),
        ('[kv]\nschemas = "."\n', "kv schemas", "fail", "bad.xml is no schema"),
        ('[kv]\ntrace = "absent/trace"\n', "kv trace", "fail", "cannot be written"),
        ('dtype = "float16"\n', "kv reuse", "note", "float16 has not been shown"),
        (f'[store]\nencryption_key = "{KEY}"\n[kv]\nstore = "kv"\n', "kv encryption", "fail",
         "kv was written without a key"),
    ],
)  # fmt: skip
def test_what_cannot_work_or_does_nothing_is_said(
    written: str, name: str, grade: str, said: str, doctor: Doctor, copied: Path
) -> None:
    (doctor.folder / "both.json").write_text("{}")
    (doctor.folder / "bad.xml").write_text("<schema>")
    (doctor.folder / "kv").mkdir()
    kept_key(doctor.folder / "kv", "kv")
    found = doctor(f'[local]\nmodel = "model"\n{written}')
    assert any(g == grade and said in says for g, says, _ in found[name])


def test_another_family_is_served_without_reuse_and_a_broken_one_not_at_all(
    doctor: Doctor, copied: Path
) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    found = doctor('[local]\nmodel = "model"\n')
    assert "nothing is reused: its family 'gpt2'" in found["kv reuse"][0][1]
    cut(copied)
    grade, says, todo = doctor('[local]\nmodel = "model"\n')["model"][0]
    assert (grade, "weights that are whole" in says, bool(todo)) == ("fail", True, True)


def test_a_sealed_folder_wants_its_key(doctor: Doctor, copied: Path) -> None:
    (doctor.folder / "kv").mkdir()
    (doctor.folder / "kv" / "folder.key").write_bytes(bytes.fromhex("01020304") + bytes(80))
    grade, says, _ = doctor('[kv]\nstore = "kv"\n')["kv encryption"][0]
    assert (grade, says) == ("fail", "kv is sealed with key 01020304, and none is configured")
    written = f'[store]\nencryption_key = "{OTHER}"\n[kv]\nstore = "kv"\n'
    grade, says, _ = doctor(written)["kv encryption"][0]
    assert (grade, says) == ("fail", "kv is sealed with key 01020304, which is not configured")


def test_a_gateway_s_secret_must_be_the_model_server_s(doctor: Doctor) -> None:
    pool = '[upstreams.m]\nurls = ["http://127.0.0.1:9"]\nengine_secret = "{}"\n'
    for theirs, grades in (("s" * 32, ["ok"]), ("t" * 32, ["ok", "fail"])):
        written = f'[kv]\ngateway_secret = "{"s" * 32}"\n' + pool.format(theirs)
        assert [grade for grade, *_ in doctor(written)["kv clients"]] == grades


def test_old_models_in_the_folder_are_counted(doctor: Doctor) -> None:
    kept_key_folder = doctor.folder / "kv"
    kept_key_folder.mkdir()
    kept_key(kept_key_folder, "kv")
    for digit in "123":
        (kept_key_folder / (digit * 64)).mkdir()
        (kept_key_folder / (digit * 64) / "0001.rows").write_bytes(bytes(2048))
    _, (grade, says, todo) = doctor('[kv]\nstore = "kv"\n')["kv store"]
    assert (grade, says[:30]) == ("note", "4KiB there are of 2 other mode")
    assert "thinkonce kv drop" in todo


def test_who_serves_no_model_is_only_told_that_none_can_be(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine_model, "NEEDS", ("no_such_library",))
    found = doctor("")
    assert found["model server"][0][:2] == ("note", "a local model needs no_such_library")
    assert "kv memory" not in found
    assert doctor('[kv]\nmemory = "2GiB"\n')["model server"][0][0] == "fail"


def test_a_little_attention_to_sentences_is_refused_before_anything_is_loaded(
    doctor: Doctor, capsys: Capture
) -> None:
    doctor.file.write_text("[kv]\nsentence_tokens = 127\n")
    for command in ("doctor", "serve-model"):
        assert main([command]) == 2
        told = "".join(capsys.readouterr())
        assert "[kv] sentence_tokens=127 does not work; use 0, which is off, or 128" in told


def test_what_fails_is_in_the_report_and_in_its_exit_code(doctor: Doctor, capsys: Capture) -> None:
    doctor.file.write_text('[kv]\ntrace = "absent/trace"\n')
    assert main(["doctor", "--store", "sqlite:///new.db"]) == 1
    assert "FAIL  kv trace         absent/trace cannot be written" in capsys.readouterr().out
