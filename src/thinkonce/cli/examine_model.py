"""What `doctor` checks of the local model: its files, the memory and the cores it will take."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from thinkonce.cli.examine import Finding, Grade
from thinkonce.cli.output import show_bytes
from thinkonce.cli.resources import cores, memory_bytes
from thinkonce.errors import ConfigError
from thinkonce.kv.generation.families import FAMILIES
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.on_disk import ModelFiles, converted_files, directory_of, model_files
from thinkonce.settings import Kv, Local

__all__ = ("HOW", "files_of", "lacking", "memory", "models", "reuse", "threads")

NEEDS = ("torch", "transformers", "tokenizers", "aiohttp", "uvicorn")
HOW = "pip install '/path/to/thinkonce[local]'"
PROCESS_BYTES = 600 * 2**20  # Python, torch and what a forward pass needs for a moment
NEARLY = 0.9  # of the machine's memory


def lacking() -> str:
    """The first library that a local model needs and that is not installed; "" for none."""
    return next((needed for needed in NEEDS if find_spec(needed) is None), "")


def models(local: Local) -> Iterator[Finding]:
    """The configured local model; whether it is missed depends on whether it is used."""
    if (folder := directory_of(local.model)) is not None:
        yield _directory(folder)
        return
    found = next((m for m in packaged.installed() if m.model is packaged.find(local.model)), None)
    if found is None:
        known = " | ".join(packaged.names())
        says = (
            f"{local.model} is neither a directory, nor a packaged model ({known}), nor in this "
            "machine's hub cache"
        )
        yield Finding("model", Grade.BAD, says, "correct [local] model")
    elif found.path is None:
        grade = Grade.BAD if local.enabled else Grade.NOTE
        todo = f"thinkonce model install {found.model.name}"
        yield Finding("model", grade, f"{found.model.name} is not installed", todo)
    else:
        yield _packaged(found.model.name, found.path)


def _directory(folder: Path) -> Finding:
    try:
        files = model_files(folder)
    except ConfigError as error:
        todo = "fetch it again, or correct [local] model"
        return Finding("model", Grade.BAD, f"{folder} needs {error.accepts}", todo)
    size = files.parameters * files.stored
    weights = f", {show_bytes(size)} of weights" if size else ""
    return Finding("model", Grade.GOOD, f"directory {folder}{weights}")


def _packaged(name: str, path: Path) -> Finding:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        says, todo = f"{path} cannot be read ({error.strerror})", f"chmod a+r {path}"
        return Finding("model", Grade.BAD, says, todo)
    return Finding("model", Grade.GOOD, f"{name} at {path}")


def files_of(local: Local) -> ModelFiles | None:
    """None for a model that is not here or not whole, which `models` says, or never converted."""
    try:
        if (folder := directory_of(local.model)) is not None:
            return model_files(folder)
        known = packaged.find(local.model)
        return None if known is None else converted_files(known)
    except ConfigError:
        return None


def reuse(local: Local, kv: Kv, files: ModelFiles | None) -> Iterator[Finding]:
    """Where the model's attention state would not be kept, whatever [kv] says."""
    if files is None or not kv.reuse:
        return
    numbers, why = files.bytes_a_number(local.dtype), ""
    if files.family not in FAMILIES:
        why = f"its family {files.family!r} is not one of {', '.join(FAMILIES)}"
    elif local.dtype == "float16":
        why = "float16 has not been shown to give equal bits; float32 and bfloat16 have"
    if why or not numbers:
        says = f"nothing is reused: {why}" if why else "weights in a form that is not looked into"
        yield Finding("kv reuse", Grade.NOTE, says)


def memory(local: Local, kv: Kv, files: ModelFiles | None) -> Iterator[Finding]:
    """`[kv] memory` beside one block, a whole prompt, and the machine."""
    if not kv.reuse:
        return
    token = 0 if files is None else files.bytes_a_token(local.dtype)
    block, budget = token * kv.chunk, show_bytes(kv.memory)
    if kv.memory < block:
        says = f"{budget} is less than one block of {kv.chunk} tokens takes, {show_bytes(block)}"
        yield Finding("kv memory", Grade.BAD, says, "give [kv] memory more, or [kv] reuse = false")
        return
    yield _beside_machine(local, kv, files)
    longest = 0 if files is None else files.context_tokens
    if token and kv.memory < token * longest:
        says = (
            f"{budget} holds {kv.memory // token:,} tokens of the {longest:,} that the model's "
            "context has: longer prompts are refused"
        )
        todo = f"[kv] memory = {show_bytes(token * longest)} or more, if there are such prompts"
        yield Finding("kv memory", Grade.NOTE, says, todo)


def _beside_machine(local: Local, kv: Kv, files: ModelFiles | None) -> Finding:
    total, token = memory_bytes(), 0
    weights = PROCESS_BYTES
    if files is not None:
        token = files.bytes_a_token(local.dtype)
        weights += files.parameters * files.bytes_a_number(local.dtype)
    tokens = f", {kv.memory // token:,} tokens" if token else ""
    says = f"{show_bytes(kv.memory)}{tokens}; the model and its process take {show_bytes(weights)}"
    if total is None:
        return Finding("kv memory", Grade.GOOD, says)
    says += f" besides, of {show_bytes(total)} here"
    room = total - weights
    todo = f"[kv] memory = {show_bytes(room)} at most" if room > 0 else "a smaller model"
    if kv.memory > room:
        return Finding("kv memory", Grade.BAD, f"{says}: the system would end it when full", todo)
    if kv.memory + weights > NEARLY * total:
        return Finding("kv memory", Grade.NOTE, f"{says}: little is left for others", todo)
    return Finding("kv memory", Grade.GOOD, says)


def threads(local: Local) -> Iterator[Finding]:
    """More threads than cores wait for each other in every layer."""
    if local.device != "cpu":
        return
    there = cores()
    taken, most = local.threads or there.seen, max(1, int(there.usable))
    says = f"{taken} for {there.usable:g} {'core' if there.usable == 1 else 'cores'}"
    if taken > most:
        todo = f"[local] threads = {most}"
        yield Finding("threads", Grade.NOTE, f"{says}: they wait for each other", todo)
    else:
        yield Finding("threads", Grade.GOOD, says)
