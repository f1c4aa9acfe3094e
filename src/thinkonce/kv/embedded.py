"""A local model in this process, without a server: attention state reused in the same way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from thinkonce.errors import ConfigError, RequestError
from thinkonce.kv.engine import KvEngine, open_engine
from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.modules.chat import compiled
from thinkonce.kv.modules.markup import read_schema
from thinkonce.kv.modules.registry import Schemas
from thinkonce.kv.modules.schema import Schema
from thinkonce.kv.prefix.owner import NOBODY
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.prefix.reused import Reused
from thinkonce.kv.serving.admin.read_ahead import Preloaded, Progress, ReadAhead
from thinkonce.kv.serving.admin.schemas import work_of_schema
from thinkonce.kv.serving.answers.answer import Ended, Said, Spent, Work, answer
from thinkonce.kv.serving.answers.explanation import Explanation
from thinkonce.kv.serving.answers.room import longest_answer
from thinkonce.kv.serving.requests.ask import ChatAsk, Defaults, read_chat
from thinkonce.kv.serving.requests.breakpoints import life_asked
from thinkonce.kv.serving.requests.controls import controls_in
from thinkonce.kv.serving.requests.documents import Document, with_documents
from thinkonce.kv.serving.requests.modular import module_tokens, with_schema
from thinkonce.kv.serving.requests.prompt import chat_tokens, contents
from thinkonce.kv.weights.model import Model, load
from thinkonce.settings import Kv, KvCodec, KvMethod
from thinkonce.settings.read import fields_of, read_value
from thinkonce.tiers.keyring import Keyring, parse_keys
from thinkonce.units import parse_bytes

__all__ = ("Answer", "Engine", "Preloaded", "Usage")

_MOST_TOKENS = 1024  # of an answer to a request that sets no bound
# Settings that are called otherwise here.
_ARGUMENTS = {"[kv] memory": "ram", "[kv] store": "disk"}
_PURGED = {"document": "id of a document", "tag": "tag of a call", "namespace": "name of one"}


@dataclass(frozen=True, slots=True)
class Usage:
    """In tokens; `cached_tokens` of the prompt's were loaded instead of computed, `by_method` so
    many each. Where `exact` is false the answer may be another than had nothing been kept.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    by_method: Mapping[str, int] = field(default_factory=dict)
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """`finish_reason`: `stop`, or `length` where `max_tokens` ended it.

    `explain`: what of the prompt was loaded, and why not more.
    """

    text: str
    usage: Usage
    finish_reason: str
    explain: Explanation


class Engine:
    """A loaded model. Thread-safe: one answer at a time, others wait. A context manager."""

    def __init__(self, model: Model, engine: KvEngine) -> None:
        """See `open`."""
        self._model, self._engine = model, engine
        self._lock = threading.Lock()
        self._schemas = Schemas()
        self._is_closed = False
        # The threads that a stream waits in for its next piece to be asked for, and that tell
        # `progress`: 0 where none does.
        self._paused = self._telling = 0

    @classmethod
    def open(
        cls,
        model: str | None = None,
        *,
        ram: int | str = "1GiB",
        disk: str = "",
        chunk: int = 128,
        dtype: str = "auto",
        device: str = "cpu",
        encryption_key: str = "",
        codec: KvCodec = "raw",
        method: KvMethod = "exact",
        link_tokens: int = 16,
        sentence_tokens: int = 0,
    ) -> Engine:
        """`model`: a packaged model's name, a directory, or None for the packaged default.

        `ram`: most bytes of attention state in memory, such as "2GiB". `disk`: a folder that it
        is written to as well. `chunk`: tokens in a block. `dtype`: numbers of the model, "auto"
        those of its weights; `device`: where it computes. `encryption_key`: one or several as
        `[store] encryption_key` has them, which seal what is on disk. `codec`: "int8" keeps it in
        fewer bytes, and not to the bit. `method`: how documents are reused where a call does not
        say; `link_tokens`: so many of each are computed again by "link". `sentence_tokens`:
        answers to longer prompts attend to so many tokens of them, 0 to all. Raises ConfigError
        for what cannot work.
        """
        _check_texts(dtype=dtype, device=device, encryption_key=encryption_key)
        if model is not None and not isinstance(model, str | os.PathLike):
            raise ConfigError("model", model, "a packaged model's name, or a directory")
        if not isinstance(disk, str | os.PathLike):
            raise ConfigError("disk", disk, "a folder, or an empty text for none")
        sealed = parse_keys(encryption_key, "encryption_key") if encryption_key else ()
        kv = Kv(
            memory=parse_bytes(ram, "ram"),
            store=os.fspath(disk or ""),
            chunk=_checked("chunk", chunk),
            codec=_checked("codec", codec),
            method=_checked("method", method),
            link_tokens=_checked("link_tokens", link_tokens),
            sentence_tokens=_checked("sentence_tokens", sentence_tokens),
        )
        loaded = load(model, dtype=dtype, device=device)
        try:
            return cls(loaded, open_engine(loaded, kv, keys=Keyring(encryption=sealed)))
        except ConfigError as error:
            if (argument := _ARGUMENTS.get(error.setting)) is None:
                raise
            both = f"{argument} ({error.setting})"
            raise ConfigError(both, error.got, error.accepts) from error.__cause__

    def chat(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        documents: Sequence[Document] = (),
        reuse: KvMethod | None = None,
        schema: str | None = None,
        modules: Sequence[str] = (),
        arguments: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """One answer. `fields` are those of a chat completion: `max_tokens`, `temperature`,
        `seed`, `stop`, `tools`, `kv_cache`, ... Raises RequestError naming the one that is wrong.

        `documents`: texts that the last message of the user is about, put in front of it; each a
        text, or {"id": "doc-7", "text": ...}. `reuse`: how their attention state is reused: "exact"
        where the same is in front of them, "link" and "blend" in any order, which is approximate,
        "auto" with what was measured to hold. `schema`: a name that `schema` returned; the prompt
        is put together from these `modules` of it and `arguments` of their parameters, and the
        messages follow.
        """
        fields = with_schema(fields, schema, modules, arguments)
        messages, fields = with_documents(messages, documents, reuse, fields)
        with self._turn():
            events = list(self._events(messages, fields))
        spent = next(event for event in events if isinstance(event, Spent))
        ended = next(event for event in events if isinstance(event, Ended))
        text = "".join(event.piece.text for event in events if isinstance(event, Said))
        known = spent.reused or Reused.exactly(spent.cached_tokens, 0)
        counts = (spent.prompt_tokens, spent.completion_tokens, spent.cached_tokens)
        usage = Usage(*counts, known.by_method, known.is_exact)
        return Answer(text, usage, ended.reason, spent.explanations[0])

    def stream(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        documents: Sequence[Document] = (),
        reuse: KvMethod | None = None,
        schema: str | None = None,
        modules: Sequence[str] = (),
        arguments: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Iterator[str]:
        """The answer's text as it is made. The engine is taken until the iterator is exhausted
        or closed: ask for nothing else from the same thread meanwhile. Where that thread closes
        the engine, the next piece raises RuntimeError.
        """
        fields = with_schema(fields, schema, modules, arguments)
        messages, fields = with_documents(messages, documents, reuse, fields)
        with self._turn():
            for event in self._events(messages, fields):
                if isinstance(event, Said):
                    self._paused = threading.get_ident()
                    try:
                        yield event.piece.text
                    finally:
                        self._paused = 0
                    self._check_open()

    def preload(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        progress: Callable[[int, int], None] | None = None,
        documents: Sequence[Document] = (),
        reuse: KvMethod | None = None,
        **fields: Any,
    ) -> Preloaded:
        """Read a prompt and keep it, without an answer; `fields` as of `chat`.

        `progress` is told how many tokens of how many are known by now, and may raise to stop:
        what was read until then stays kept, and the same call goes on from there. Raises
        RequestError where nothing would be kept.
        """
        messages, fields = with_documents(messages, documents, reuse, fields)
        with self._turn():
            ask = self._ask(messages, {**fields, "max_tokens": 0})
            return self._read_ahead(self._work(ask), progress)

    def schema(
        self,
        schema: Schema | str,
        *,
        folder: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        **kv_cache: Any,
    ) -> str:
        """Read a schema's texts, and keep them; the name by which `chat` takes it from now on.

        In XML, or built of `thinkonce.kv.modules.schema`. `folder`: that below which `src` may name
        files. `progress` as of `preload`. `kv_cache`: `ttl`, `priority`, `namespace`, ... of what
        is kept. What is known is not read again. Raises RequestError that names the element, and
        its line.
        """
        if isinstance(schema, str):
            schema = read_schema(schema, None if folder is None else Path(folder))
        model, said = self._model, controls_in(kv_cache)
        with self._turn():
            self._check_open()
            found = compiled(schema, model.tokenizer, model.context_tokens)
            self._schemas.add("", found)
            self._read_ahead(work_of_schema(found, NOBODY, said), progress)
        return found.name

    def _read_ahead(self, work: Work, progress: Callable[[int, int], None] | None) -> Preloaded:
        for step in ReadAhead(self._engine, work).steps(lambda: False):
            if isinstance(step, Progress) and progress is not None:
                self._telling = threading.get_ident()
                try:
                    progress(step.tokens, step.of)
                finally:
                    self._telling = 0
            elif isinstance(step, Preloaded):
                return step
        raise AssertionError("a reading that nobody cancels comes to its end")

    def purge(
        self, *, document: str | None = None, tag: str | None = None, namespace: str | None = None
    ) -> int:
        """Forget what all that is given holds for; how many blocks left memory.

        `document`: its chunks, and prefixes that contain it, as far as they were marked with its
        id; `tag` and `namespace` as a call's `kv_cache` has them. One of the three at least:
        `close` and another folder forget all. Raises OSError where the folder is not written.
        """
        named = {"document": document, "tag": tag, "namespace": namespace}
        given = {name: said for name, said in named.items() if said is not None}
        for name, said in given.items() or [("document", None)]:
            # The folder's other readers refuse a rule that says anything else.
            if not isinstance(said, str) or not said:
                raise RequestError(name, said, f"the {_PURGED[name]}, a text")
        rule = PurgeRule(document=document, tags=(tag,) if tag else (), namespace=namespace)
        with self._turn():
            return self._engine.purge(rule)[0]

    def audit(self) -> int:
        """Read prompts that were answered approximately again, exactly, and compare; how many
        still wait. `reuse` "auto" is exact until such audits say what holds; `stats` has them
        as `fidelity`. The model server does it while it has nothing else to do.
        """
        ways = self._engine.ways
        if ways is None:
            return 0
        with self._turn():
            for _ in ways.audits.run(lambda: self._is_closed, ways.told):
                pass
        return ways.audits.waiting

    def stats(self) -> dict[str, Any]:
        """What `GET /kv/stats` of the model server tells."""
        return self._engine.stats()

    def close(self) -> None:
        """Write what is still to be written. Idempotent; nothing can be asked afterwards.

        It waits for what other threads have asked for. A stream that this thread has begun is
        over: nobody else would end it.
        """
        is_own = self._paused == threading.get_ident()
        with nullcontext() if is_own else self._turn():
            self._is_closed = True
            self._engine.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _events(self, messages: Sequence[dict[str, Any]], fields: dict[str, Any]) -> Iterator[Any]:
        work = self._work(self._ask(messages, fields))
        if work.is_ahead:
            raise RequestError("max_tokens", 0, "1 or more; `preload` reads without an answer")
        yield from answer(self._engine.generator, self._model.tokenizer, work, lambda: False)

    def _ask(self, messages: Sequence[dict[str, Any]], fields: dict[str, Any]) -> ChatAsk:
        self._check_open()
        known = ChatAsk.__struct_fields__
        if unknown := sorted(fields.keys() - set(known)):
            # A client of a server may send more than it knows; here it is a misspelt argument.
            accepts = f"one of {', '.join(('documents', 'reuse', *known))}"
            raise RequestError(unknown[0], fields[unknown[0]], accepts)
        body = msgspec.json.encode({**fields, "messages": list(messages)})
        ask = read_chat(body, self._defaults())
        if ask.stream or ask.choices > 1:
            raise RequestError("stream or n", True, "neither; call `stream`, or ask again")
        return ask

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time. Raises RuntimeError where that would wait for itself."""
        if self._telling == threading.get_ident():
            raise RuntimeError("`progress` was told in the middle of a reading: it can ask nothing")
        with self._lock:
            yield

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("this engine is closed")

    def _tokens(self, ask: ChatAsk) -> Prompt:
        tokenizer, name = self._model.tokenizer, ask.attention.schema
        if name is None:
            return chat_tokens(tokenizer, ask, usual=self._engine.method)
        return module_tokens(tokenizer, ask, self._schemas.find("", name))

    def _work(self, ask: ChatAsk) -> Work:
        tokens, context = self._tokens(ask), self._model.context_tokens
        try:
            bound = longest_answer(self._engine, context, (tokens,), ask.asked_tokens, _MOST_TOKENS)
        except TooLong as wrong:
            raise RequestError("messages", f"{tokens.end} tokens", f"what fits: {wrong}") from wrong
        said, sampling = ask.attention, ask.sampling(self._defaults(), bound)
        owner = said.owner(NOBODY, ask.prompt_cache_key, tokens.documents)
        terms = replace(said.terms(life_asked(ask.messages, ask.tools)), explains=True)
        return Work((tokens,), 1, sampling, ask.stops, owner, terms, contents(ask))

    def _defaults(self) -> Defaults:
        model = self._model
        return Defaults(
            temperature=model.temperature,
            top_p=model.top_p,
            top_k=model.top_k,
            max_tokens=_MOST_TOKENS,
            vocabulary=model.vocabulary,
        )


def _check_texts(**given: object) -> None:
    """Raises ConfigError for what is none, and tells of a key no more than its type."""
    for name, value in given.items():
        if not isinstance(value, str):
            shown = type(value).__name__ if name == "encryption_key" else value
            raise ConfigError(name, shown, "a text")


def _checked(name: str, value: Any) -> Any:
    """As `[kv]` takes it. Raises ConfigError."""
    return read_value(fields_of(Kv)[name], name, value, ())
