"""The commands as a user meets them: help, exit codes, one line on a mistake, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from thinkonce import Cache
from thinkonce.cli import main
from thinkonce.cli.later import NOT_BUILT
from thinkonce.cli.output import print_table
from thinkonce.cli.reference import command_help
from thinkonce.version import __version__

HELP = dict(command_help())


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", HELP)
def test_every_help_has_an_example_that_names_its_command(command: str) -> None:
    text = " ".join(HELP[command].split())
    assert f"Example: {command}" in text, "an example begins with the command it explains"


PROMISED = {
    "serve",
    "serve-model",
    "model",
    "keys",
    "stats",
    "ls",
    "show",
    "purge",
    "reset-audits",
    "explain",
    "preload",
    "export",
    "import",
    "kv",
    "plan",
    "lint",
    "bench",
    "doctor",
    "encrypt",
}


def test_every_promised_command_is_there() -> None:
    names = {name.split()[1] for name in HELP if " " in name}
    assert names == PROMISED
    assert {"thinkonce model install", "thinkonce model list"} <= set(HELP)


def test_the_module_is_the_command(empty_folder: Path) -> None:
    for start in ([sys.executable, "-m", "thinkonce"], [Path(sys.executable).parent / "thinkonce"]):
        done = subprocess.run(
            [*start, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, f"thinkonce {__version__}\n"), done.stderr


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "serve-model" in capsys.readouterr().out


MISTAKES = [
    (["frobnicate"], "frobnicate"),
    (["serve"], "--upstream URL"),
    (["serve", "--upstream", "nonsense"], "--upstream='nonsense'"),
    (["serve", "--upstream", "http://a", "--upstream", "http://a"], "each URL once"),
    (["serve", "--upstream", "https://a/v1/chat/completions"], "the base URL alone: https://a/v1"),
    (["serve", "--upstream", "http://a/v1/messages/"], "the base URL alone: http://a/v1"),
    (["serve", "--local", "--port", "99999"], "--port=99999"),
    (["serve", "--local", "--port", "x"], "--port='x' does not work; use a valid integer"),
    (["serve", "--local", "--workers", "0"], "1 to 64"),
    (["serve", "--local", "--store", "redis://h"], "--store='redis://h'"),
    (["serve", "--local", "--store", "redis://h"], "not built yet"),
    (["serve", "--local", "--store", "nofile.db"], "did you mean sqlite:///nofile.db?"),
    (["serve", "--local", "--store", "memory"], "did you mean memory://?"),
    (["ls", "--store", "/a/nofile.db"], "did you mean sqlite:////a/nofile.db?"),
    (["serve", "--local", "nosuchmodel"], "--local='nosuchmodel'"),
    (["serve", "--local", "nosuchmodel"], "SmolLM2-135M-Instruct"),
    (["stats", "--url", "http://h/elsewhere/v1"], "--url='http://h/elsewhere/v1'"),
    (["serve", "--local", "--config", "absent.toml"], "absent.toml"),
    (["model", "install", "gpt-5"], "gpt-5"),
    (["purge"], "--all"),
    (["purge", "--all", "--url", "http://h", "--store", "sqlite:///x.db"], "not both"),
    (["purge", "--older-than", "long"], "--older-than='long'"),
    (["show", "12345"], "8 to 64 hex digits"),
    (["show", "zzzzzzzz"], "8 to 64 hex digits"),
    (["stats", "--store", "sqlite:///absent.db"], "absent.db"),
    (["stats", "--store", "memory://"], "--url"),
    (["ls", "--limit", "0"], "--limit='0' does not work; use a number greater than or equal to 1"),
    (["ls", "--limit=ten"], "--limit='ten' does not work; use a valid integer"),
    (["bench", "--url", "http://h"], "--prompts FILE"),
    (["bench", "--prompts", "absent.txt", "--url", "http://h"], "absent.txt"),
    (["bench", "absent"], "absent"),
    *(([name, "anything", "--at-all"], f"`{name}` is not built yet") for name in NOT_BUILT),
]


def test_the_help_marks_what_is_not_built_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    marked = {words[0] for words in lines if words[-3:] == ["(not", "built", "yet)"]}
    assert marked == set(NOT_BUILT)


def test_the_help_says_what_each_command_does_in_full_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "serve-model" in said
    assert "..." not in said.partition("Commands:")[2]


@pytest.mark.parametrize(("arguments", "named"), MISTAKES, ids=str)
def test_a_mistake_exits_2_with_one_line_that_names_it(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str], empty_folder: Path
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("thinkonce: ")
    assert said.err.count("\n") == 1, said.err
    assert named in said.err
    assert not list(empty_folder.glob("*.db*")), "a mistake leaves no store behind"


def test_a_gateway_that_is_not_there_exits_1(capsys: pytest.CaptureFixture[str], port: int) -> None:
    assert main(["stats", "--url", f"http://127.0.0.1:{port}"]) == 1
    said = capsys.readouterr()
    assert "cannot be reached (does `thinkonce serve` run there?)" in said.err
    assert said.err.count("\n") == 1


def test_a_listing_that_matches_nothing_does_not_call_the_store_empty(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Cache(store="sqlite:///some.db") as cache:
        cache.set("question", "answer", tags=["faq"])
    assert main(["ls", "--store", "sqlite:///some.db", "--tag", "none"]) == 0
    assert capsys.readouterr().out.startswith("nothing matches in ")
    assert main(["ls", "--store", "sqlite:///some.db", "--tag", "faq"]) == 0
    assert "faq" in capsys.readouterr().out


def test_a_broken_configuration_is_said_by_every_command_that_reads_it(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "thinkonce.toml").write_text("[gateway]\nprot = 1\n", encoding="utf-8")
    for arguments in (["serve", "--local"], ["stats"], ["ls"], ["purge", "--all"]):
        assert main(arguments) == 2
        assert "did you mean port?" in capsys.readouterr().err


def test_packaged_models_are_listed_as_json_and_as_a_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["model", "list", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert model["name"] == "SmolLM2-135M-Instruct"
    assert model["licence"] == "Apache-2.0"
    assert main(["model", "list"]) == 0
    assert "SmolLM2-135M-Instruct" in capsys.readouterr().out


def test_a_table_in_a_pipe_has_one_line_a_row_and_no_blanks_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = "/a folder/" + "long/" * 100 + "模型.gguf"
    print_table(("NAME", "BYTES", "PATH"), [("one", "1MiB", path), ("other one", "12MiB", "-")])
    lines = capsys.readouterr().out.split("\n")
    assert lines == [
        "NAME       BYTES  PATH",
        f"one         1MiB  {path}",
        "other one  12MiB  -",
        "",
    ]


def test_the_default_model_of_the_settings_is_the_packaged_one() -> None:
    from thinkonce.kv.weights.packaged import DEFAULT
    from thinkonce.settings import Local

    assert Local().model == DEFAULT
