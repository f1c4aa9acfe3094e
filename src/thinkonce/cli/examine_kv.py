"""What `doctor` checks for a model server: what it needs, its folder, its clients, its settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from thinkonce.cli.examine import Finding, Grade
from thinkonce.cli.examine_model import HOW, files_of, lacking, memory, models, reuse, threads
from thinkonce.cli.examine_store import no_room_in
from thinkonce.cli.output import show_bytes
from thinkonce.errors import ConfigError
from thinkonce.settings import Kv, Local, Settings, Store
from thinkonce.tiers.keyring import SETTING, cipher_of, keys_of

__all__ = ("model_server",)

Findings = Iterator[Finding]


def model_server(settings: Settings) -> Findings:
    """All of it, where a local model can be served here or is meant to be. What somebody who wrote
    nothing of one may not miss is a note.
    """
    local, kv = settings.local, settings.kv
    is_meant = local != Local() or kv != Kv()
    if needed := lacking():
        grade = Grade.BAD if is_meant else Grade.NOTE
        yield Finding("model server", grade, f"a local model needs {needed}", HOW)
        return
    yield from models(local)
    files = files_of(local)
    for finding in (*reuse(local, kv, files), *memory(local, kv, files), *threads(local)):
        is_mild = finding.grade is Grade.BAD and not is_meant
        yield msgspec.structs.replace(finding, grade=Grade.NOTE) if is_mild else finding
    yield from _folder(kv, settings.store)
    yield from _clients(settings)
    yield from _files(kv)
    yield from _idle(kv)


# -- the folder ----------------------------------------------------------------------------


def _folder(kv: Kv, store: Store) -> Findings:
    if not kv.store:
        yield Finding(
            "kv store", Grade.NOTE, "none: attention state ends with the process", "[kv] store"
        )
        return
    root = Path(kv.store).expanduser()
    wrong = _unusable(root)
    if wrong:
        todo = f"chown or chmod {root}, or name another folder in [kv] store"
        yield Finding("kv store", Grade.BAD, f"{root} cannot be used ({wrong})", todo)
    elif not root.exists():
        yield Finding(
            "kv store", Grade.NOTE, f"{root} is not there yet; it is made when first used"
        )
    else:
        yield from _held(root, kv)
        yield from _sealed(root, store)


def _unusable(root: Path) -> str:
    """Why a model server could not use it; "" where it can."""
    if root.exists() and not root.is_dir():
        return "it is no folder"
    folder = next(path for path in (root, *root.absolute().parents) if path.exists())
    is_others = (
        root.exists() and hasattr(os, "geteuid") and os.geteuid() not in (0, root.stat().st_uid)
    )
    return "it belongs to another user" if is_others else no_room_in(folder)


def _held(root: Path, kv: Kv) -> Findings:
    """How full it is, whether it may grow as far as it may, and what nobody uses."""
    from thinkonce.kv.disk.model_folders import model_folders

    try:
        found, free = model_folders(root), shutil.disk_usage(root).free
    except OSError as error:
        yield Finding("kv store", Grade.BAD, f"{root}: {error.strerror}", f"chmod -R u+rwX {root}")
        return
    latest = min(found, key=lambda each: (not each.in_use, each.age), default=None)
    held = latest.bytes if latest else 0
    says = (
        f"{root}, {show_bytes(held)} of {show_bytes(kv.disk)}, {show_bytes(free)} free on its disk"
    )
    if kv.disk - held > free:
        todo = f"[kv] disk = {show_bytes(held + free)} at most, or more room"
        yield Finding("kv store", Grade.NOTE, f"{says}: it may fill that", todo)
    else:
        yield Finding("kv store", Grade.GOOD, says)
    if others := [each for each in found if each is not latest and not each.in_use]:
        size = show_bytes(sum(each.bytes for each in others))
        says = f"{size} there are of {len(others)} other models, or of other settings or releases"
        todo = "`thinkonce kv models` says which, `thinkonce kv drop` removes them"
        yield Finding("kv store", Grade.NOTE, says, todo)


def _sealed(root: Path, store: Store) -> Findings:
    """Whether the folder was written with a key that is configured, or without one as it is now."""
    from thinkonce.kv.disk.folder import OWNERS_KEY
    from thinkonce.kv.disk.sealing import FOLDER_KEY

    try:
        cipher = cipher_of(keys_of(store), "kv")
        sealed = (root / FOLDER_KEY).read_bytes()[:4].hex() if (root / FOLDER_KEY).exists() else ""
    except (ConfigError, OSError):
        return  # keys that cannot be used are said of the store, files that cannot above
    if cipher is None and sealed:
        says = f"{root} is sealed with key {sealed}, and none is configured"
        yield Finding("kv encryption", Grade.BAD, says, f"put that key into {SETTING}")
    elif cipher is not None and sealed and sealed not in cipher.ids:
        says = f"{root} is sealed with key {sealed}, which is not configured"
        yield Finding(
            "kv encryption", Grade.BAD, says, f"put that key behind the others ({SETTING})"
        )
    elif cipher is not None and not sealed and (root / OWNERS_KEY).exists():
        says = f"{root} was written without a key, and {SETTING} is set now"
        yield Finding(
            "kv encryption", Grade.BAD, says, "remove what is in it, or name another folder"
        )
    elif cipher is not None and sealed:
        yield Finding("kv encryption", Grade.GOOD, f"sealed with key {sealed}")


# -- who may ask ---------------------------------------------------------------------------


def _clients(settings: Settings) -> Findings:
    if known := sorted(settings.clients):
        shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        yield Finding("kv clients", Grade.GOOD, f"{len(known)} in [clients] may ask: {shown}")
    else:
        says = "nobody in [clients]: whoever reaches `serve-model` may ask, by default this machine"
        yield Finding("kv clients", Grade.GOOD, says)
    ours = settings.kv.gateway_secret
    theirs = [pool.engine_secret for pool in settings.upstreams.values() if pool.engine_secret]
    if ours and theirs and ours not in theirs:
        says = "[kv] gateway_secret is not the engine_secret of any of [upstreams]"
        todo = "write the same text there, or tenants and purges end at the gateway"
        yield Finding("kv clients", Grade.BAD, says, todo)


# -- settings that cannot work, or do nothing ------------------------------------------------


def _files(kv: Kv) -> Findings:
    for name in kv.public:
        if cause := _unreadable(Path(name)):
            says = f"[kv] public: {name} cannot be read ({cause})"
            yield Finding("kv public", Grade.BAD, says, 'a JSON file with "messages" or "prompt"')
    if kv.schemas and (cause := _no_schemas(Path(kv.schemas))):
        yield Finding("kv schemas", Grade.BAD, cause, "correct it, or [kv] schemas")
    if kv.trace and (cause := no_room_in(Path(kv.trace).absolute().parent)):
        says = f"{kv.trace} cannot be written ({cause})"
        yield Finding("kv trace", Grade.BAD, says, "name another file in [kv] trace")


def _unreadable(path: Path) -> str:
    try:
        said = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, msgspec.DecodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return (
        "" if ("messages" in said) != ("prompt" in said) else "neither messages nor prompt, or both"
    )


def _no_schemas(folder: Path) -> str:
    from thinkonce.errors import RequestError
    from thinkonce.kv.modules.markup import read_schema

    if not folder.is_dir():
        return f"{folder} is no folder"
    for path in sorted(folder.glob("*.xml")):
        try:
            read_schema(path.read_text("utf-8"), folder)
        except (OSError, UnicodeDecodeError, RequestError) as error:
            return f"{path} is no schema ({error})"
    return ""


def _idle(kv: Kv) -> Findings:
    """Settings that do nothing beside the others."""
    usual = Kv()
    if not kv.reuse:
        written = [
            f.name
            for f in msgspec.structs.fields(Kv)
            if getattr(kv, f.name) != getattr(usual, f.name)
        ]
        if others := [name for name in written if name not in ("reuse", "gateway_secret")]:
            says = f"reuse = false: nothing is kept, so {', '.join(others)} do nothing"
            yield Finding("kv settings", Grade.NOTE, says, "[kv] reuse = true, or leave them out")
        return
    if kv.slo and kv.policy != "tail":
        says = f"slo does nothing with policy = {kv.policy}"
        yield Finding("kv settings", Grade.NOTE, says, '[kv] policy = "tail", or leave slo out')
    if kv.policy == "tail" and not kv.slo:
        says = "policy = tail has no target, and does what guarded does"
        yield Finding("kv settings", Grade.NOTE, says, "[kv] slo, in seconds")
    if kv.disk != usual.disk and not kv.store:
        says = "disk does nothing without a folder"
        yield Finding("kv settings", Grade.NOTE, says, "[kv] store")
