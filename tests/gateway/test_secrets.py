"""What is secret stays where it belongs: not in logs, files, metrics, listings or others' answers.

Real gateways are driven through hits, misses and failures of every kind with marked secrets; then
everything they wrote and everything they tell is searched for the marks.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import CHAT, Got
from gateway.test_processes import Host, Process
from gateway.upstream import Out, Seen, Upstream, answer, completion
from thinkonce.cli import main

CLIENT, API_KEY, OWN = "sk-MARKclient", "sk-MARKapikey", "sk-MARKown"
TOKEN, SECRET, USER, PASSWORD = "MARKtoken-admin", "MARKsecret" * 4, "MARKuser", "MARKpassword"
QUERY, OPERATOR, COOKIE, GOOGLE = "MARKquery", "MARKoperator", "MARKcookie", "MARKgoogle"
SECRETS = (CLIENT, API_KEY, OWN, TOKEN, SECRET, USER, PASSWORD, QUERY, OPERATOR, COOKIE, GOOGLE)
KEY = bytes(range(32))
# What a request and its answer say: for a store that is encrypted.
TOLD = (
    "MARKprompt", "MARKanswer", "MARKtag", "MARKspace", "MARKmodel", "MARKlabel", "MARKsystem",
)  # fmt: skip
ADMIN = {"x-thinkonce-admin-token": TOKEN}


async def model(seen: Seen, out: Out) -> None:
    """Does what it is told; where it refuses, it says whose key it was shown."""
    shown = {name: seen.headers.get(name, "") for name in ("authorization", "x-api-key")}
    told = seen.body.decode()
    if "say 401" in told:
        await out.json({"error": {"message": f"wrong key: {shown}"}}, 401)
    elif "say 500" in told:
        await out.json({"error": {"message": f"broken for {shown}"}}, 500)
    elif "say 429" in told:
        await out.json({"error": {"message": f"too often: {shown}"}}, 429, retry_after="1")
    elif "say nonsense" in told:
        await out.raw(f"HTTP/1.1 200 OK\r\nno header {shown}\r\n\r\n".encode())
    elif "cut" in told:
        await out.begin_stream()
        await out.event({"choices": []})
        out.cut()
    elif "MARKprompt" in told and not seen.json.get("stream"):
        await out.json(completion("MARKanswer", model="MARKmodel"))
    else:
        await answer(seen, out)


@pytest.fixture
async def host(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Host]:
    upstream.script = model
    async with AsyncExitStack() as stack:
        yield Host(stack, tmp_path / "host", upstream)


def pools(upstream: Upstream, own: str = "") -> str:
    return f"""
[log]
level = "debug"
[gateway]
forward_headers = ["*"]
connect_timeout = "2s"
retries = 0
[upstreams.main]
urls = ["{upstream.url}?opkey={OPERATOR}"]
models = ["main*", "MARKmodel*"]
{own}
[upstreams.gone]
urls = ["http://{USER}:{PASSWORD}@127.0.0.1:1/v1"]
models = ["gone*"]
"""


def said(content: str, name: str = "main", **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": content}]} | more


async def started(host: Host, config: str, **environ: str) -> Process:
    host.folder.mkdir(exist_ok=True)
    file = host.folder.parent / "thinkonce.toml"  # not among the files that are searched
    file.write_text(config, encoding="utf-8")
    return await host._ready(
        "--config", str(file), THINKONCE_ADMIN_TOKEN=TOKEN, THINKONCE_STORE_SECRET=SECRET, **environ
    )


async def ask(process: Process, path: str, body: Any, headers: dict[str, str]) -> Got:
    async with process.session.post(process.url + path, json=body, headers=headers) as got:
        return Got(got.status, dict(got.headers), await _read(got))


async def _read(got: Any) -> bytes:
    try:
        return bytes(await got.read())
    except Exception:  # cut off, as it should be
        return b""


async def look(process: Process, path: str) -> bytes:
    async with process.session.get(process.url + path, headers=ADMIN) as got:
        return bytes(await got.read())


async def everything_asked(process: Process, headers: dict[str, str]) -> list[Got]:
    """Hits, misses, bypasses and failures of every kind."""
    bodies = [
        said("hi"),
        said("hi"),
        said("hi", stream=True),
        said("new", stream=True),
        said("x", kv_cache={"tags": ["t"], "cache_key": "l"}),
        said("x", kv_cache={"enabled": False}),
        *(said(f"say {status}") for status in (401, 500, 429)),
        *(said(f"say {status}", stream=True, kv_cache={"enabled": False}) for status in (401, 500)),
        said("cut", stream=True),
        said("say nonsense"),
        said("say nonsense", stream=True),
        said("say nonsense", kv_cache={"enabled": False}),
        said("hi", "gone-1"),
        said("hi", "gone-1", stream=True),
        said("hi", "unknown-model"),
        said("hi", kv_cache={"nonsense": 1}),
        {"model": 3},
    ]
    got = [await ask(process, CHAT + f"?key={QUERY}", body, headers) for body in bodies]
    got += [await ask(process, CHAT, said("no query"), headers) for _ in range(2)]
    got.append(await ask(process, "/v1/files", {"say 401": 1}, headers))
    got.append(await ask(process, "/v1/embeddings", {"model": "main", "input": "say 401"}, headers))
    got.append(await ask(process, "/v1/messages", {"model": "main"}, headers))
    return got


async def told_by(process: Process) -> bytes:
    """Everything that an administrator or a scraper is told."""
    listed = json.loads(await look(process, "/cache/entries"))
    key = listed["entries"][0]["key"] if isinstance(listed, dict) else listed[0]["key"]
    pages = ["/metrics", "/cache/stats", f"/cache/entries/{key}", "/cache/export", "/openapi.json"]
    pages += ["/healthz", "/readyz", "/"]
    found = [json.dumps(listed).encode(), *[await look(process, page) for page in pages]]
    explained = await ask(process, "/cache/explain", {"request": said("hj")}, ADMIN)
    return b"\n".join([*found, explained.body])


def forms_of(secret: str) -> list[bytes]:
    """As it is, and as HTTP and files may hold it."""
    raw = secret.encode()
    return [raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode(), raw[::-1]]


def found(marks: tuple[str, ...], text: bytes) -> set[str]:
    return {mark for mark in marks if any(form in text for form in forms_of(mark))}


def files_of(folder: Path) -> bytes:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "answers.db" for path in files)
    return b"\n".join(path.read_bytes() for path in files)


async def test_a_clients_credentials_are_nowhere_but_on_their_way_upstream(host: Host) -> None:
    process = await started(host, pools(host.upstream))
    more = {"cookie": COOKIE, "x-goog-api-key": GOOGLE}  # sent on, where every header is
    for headers in ({"authorization": f"Bearer {CLIENT}"}, {"x-api-key": API_KEY}, more):
        await everything_asked(process, headers)
    arrived = b"".join(str(seen.headers).encode() for seen in host.upstream.seen)
    used = (CLIENT, API_KEY, COOKIE, GOOGLE)
    assert found(used, arrived) == set(used), "they were used"
    told = await told_by(process)
    assert b"chat/completions" in told
    assert not found(SECRETS, told)
    open_files = files_of(host.folder)
    code, errors = await process.end()
    assert code == 0
    assert b"say 500" not in errors.encode(), "nor is what was asked"
    written = "\n".join((*process.lines, *process.farewell, errors))
    assert "HIT" in written.upper(), "there is a log"
    assert not found(SECRETS, written.encode())
    assert not found(SECRETS, open_files + files_of(host.folder))


async def test_the_gateways_own_key_reaches_no_client_and_an_encrypted_store_tells_nothing(
    host: Host,
) -> None:
    rows = "\n".join(
        f'[clients.{name}]\nkey_sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"'
        for name, key in (("one", CLIENT), ("two", API_KEY))
    )
    config = pools(host.upstream, 'api_key_env = "PROVIDER_KEY"') + rows
    process = await started(
        host, config, PROVIDER_KEY=OWN, THINKONCE_STORE_ENCRYPTION_KEY=KEY.hex()
    )
    headers = {"authorization": f"Bearer {CLIENT}"}
    answers = await everything_asked(process, headers)
    answers += await everything_asked(process, {"x-api-key": API_KEY})
    arrived = b"".join(str(seen.headers).encode() for seen in host.upstream.seen)
    assert found((CLIENT, API_KEY, OWN), arrived) == {OWN}
    marked = said("MARKprompt", "MARKmodel-1")
    marked["messages"].insert(0, {"role": "system", "content": "MARKsystem"})
    marked["kv_cache"] = {"tags": ["MARKtag"], "namespace": "MARKspace", "cache_key": "MARKlabel"}
    for _ in range(2):
        got = await ask(process, CHAT, marked, headers)
    assert got.headers["x-cache"] == "HIT"
    shown = b"\n".join(each.body + str(each.headers).encode() for each in answers)
    assert not found((OWN, TOKEN, SECRET, USER, PASSWORD), shown)
    errors_shown = b"\n".join(each.body for each in answers if each.status != 200)
    assert b"is not HTTP: " in errors_shown
    assert not found((QUERY, OPERATOR), errors_shown)
    assert b"wrong key" in shown, "an upstream's own words, but for the key"
    purged = await ask(process, "/cache/purge", {"tags": ["nothing", "MARKtag2"]}, ADMIN)
    assert purged.status == 200
    told = await told_by(process)
    assert not found(SECRETS, told)
    open_files = files_of(host.folder)
    code, errors = await process.end()
    assert code == 0
    written = "\n".join((*process.lines, *process.farewell, errors))
    assert not found(SECRETS, written.encode())
    for files in (open_files, files_of(host.folder)):
        assert not found((*SECRETS, *TOLD, KEY.hex()), files)
        assert KEY not in files


@pytest.mark.parametrize(
    "environ",
    [
        {"THINKONCE_STORE_SECRET": "MARKshort"},
        {"THINKONCE_ADMIN_TOKEN": "MARK"},
        {"THINKONCE_STORE_ENCRYPTION_KEY": "MARKnokey"},
        {"THINKONCE_ADMIN_TOKN": "MARKtoken"},
        {"THINKONCE_STORE_ENCRYPTION_KEYS": "MARKkeys"},
        {"THINKONCE_OPENAI_API_KEY": "MARKunknown"},
        {"THINKONCE_STORE_URL": f"redis://{USER}:{PASSWORD}@127.0.0.1"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_an_error_of_configuration_names_the_setting_and_no_secret(
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "THINKONCE_STORE_URL" not in environ:
        monkeypatch.setenv("THINKONCE_STORE_URL", "sqlite:///answers.db")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", "--upstream", "http://127.0.0.1:9", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert "MARK" not in said.out + said.err
    assert len(said.err.splitlines()) == 1


def test_doctor_shows_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "thinkonce.toml"
    gone = f'[upstreams.gone]\nurls = ["http://{USER}:{PASSWORD}@127.0.0.1:1/v1"]\n'
    secrets = f'[store]\nsecret = "{SECRET}"\nencryption_key = "{KEY.hex()}"\n'
    file.write_text(f'{gone}{secrets}[admin]\ntoken = "{TOKEN}"')
    file.chmod(0o600)
    main(["doctor", "--config", str(file)])
    said = capsys.readouterr()
    assert "127.0.0.1:1" in said.out
    assert not found((*SECRETS, KEY.hex()), (said.out + said.err).encode())


def test_an_unknown_setting_in_a_file_shows_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.toml"
    for text in ('[admin]\ntoke = "MARKtoken"', '[upstreams.a]\nurls = []\napi_key = "MARKkey"'):
        file.write_text(text)
        assert main(["serve", "--config", str(file)]) == 2
        assert "MARK" not in capsys.readouterr().err
