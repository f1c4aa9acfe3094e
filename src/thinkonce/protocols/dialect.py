"""What every wire dialect can do. A dialect is one file, plus its line in `registry.py`.

    request   asks(body) -> Asked                   what is wanted, whether it may be cached
              identity(body, ...) -> dict           what of it counts, for the key
    answer    receive(asked, ...) -> Received       a JSON answer, whole
              recorder(asked) -> Recorder           a stream: fed as it comes
              relay(asked, ...) -> Relay            ... and passed on to one client, marked
    hit       prepare(reply) -> Prepared            once per entry and process
              Prepared.render(asked, stamp, ...)    per hit, by splicing

One recorder serves a flight; every client of the flight has a relay of its own, because each may
ask for usage or not and is told of another outcome. Nothing here does I/O or keeps a global.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from thinkonce.outcome import Reason
from thinkonce.protocols.facts import Facts
from thinkonce.protocols.reply import Gist, Reply
from thinkonce.protocols.sse import Event
from thinkonce.protocols.template import Template

__all__ = ("Asked", "Dialect", "Prepared", "Received", "Recorder", "Relay", "Speech", "Stamp")


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What one request asks for, as far as handing out and keeping its answer goes."""

    model: str = ""
    stream: bool = False
    include_usage: bool = False  # of this client; always true where the dialect has no switch
    answers: int = 1  # choices, or vectors
    wants_json: bool = False
    temperature: float | None = None  # None: omitted, so the provider's default holds
    stateful: str = ""  # the field that ties the answer to state elsewhere; "" for none
    remote_media: bool = False  # a URL stands for a picture that may change
    body: dict[str, Any] = {}


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """The id and the second a hit is given. Without one, a hit keeps the upstream's."""

    id: str
    created: int


class Received(msgspec.Struct, frozen=True, gc=False):
    """A JSON answer and what there is to say about it."""

    reply: Reply
    gist: Gist


class Recorder(Protocol):
    """Takes a stream in as it comes. Not thread-safe: one flight owns it."""

    events: list[Event]  # all so far, for whoever joins late
    oversized: bool
    done: bool  # the protocol's own end mark was seen

    def feed(self, chunk: bytes) -> list[Event]:
        """The events `chunk` completed, comments included, for the relays."""
        ...

    def rest(self) -> list[Event]:
        """The event a stream ended in without a blank line, for the relays: once, at its end."""
        ...

    def gist(self) -> Gist:
        """What is known so far."""
        ...

    def end(self) -> Reply | None:
        """The complete answer, acceptable or not; None if the end mark never came.

        Whether it may be kept is for `request.storable.refusal(asked, gist(), ...)` to say.
        """
        ...


class Relay(Protocol):
    """Passes a live stream on to one client. No event is held back for another one."""

    def pass_on(self, events: Sequence[Event]) -> bytes: ...

    def fail(self, error: bytes) -> bytes:
        """An error body as the event that ends the stream."""
        ...


class Prepared(Protocol):
    """An answer cut where hits differ. May be shared by threads; parts are made at first use."""

    again: Callable[[], Reply] | None  # gives the reply another time, so that it may be let go
    size: int  # bytes of the parts made so far, besides the reply's own

    @property
    def reply(self) -> Reply: ...

    def template(self, asked: Asked) -> Template | None:
        """What `render` fills; None where it does not serve."""
        ...

    def serves(self, asked: Asked) -> bool:
        """False when the shape asked for cannot be made without loss: then it is a miss."""
        ...

    def render(self, asked: Asked, stamp: Stamp | None, annotation: bytes = b"") -> bytes:
        """The whole body; for a stream all of its events joined.

        `annotation` is what `Annotation.members()` gave. Without `stamp` and `annotation` the
        result is the upstream's bytes wherever the shape is the recorded one.
        """
        ...

    def render_events(
        self, asked: Asked, stamp: Stamp | None, annotation: bytes = b""
    ) -> list[bytes]:
        """The events of a stream one by one, for a paced replay."""
        ...


class Speech(Protocol):
    """What reading a request needs to know. Stateless and thread-safe."""

    name: str  # path without /v1: "chat/completions"; the scope of entries
    facts: Facts

    def asks(self, body: dict[str, Any]) -> Asked:
        """Never fails: what has the wrong type is left for the upstream to refuse."""
        ...

    def identity(
        self, body: dict[str, Any], *, context_aware: bool = True, ignore: frozenset[str] = ...
    ) -> dict[str, Any]:
        """What of the body counts. `ignore`: further top-level fields to leave out."""
        ...


class Dialect(Speech, Protocol):
    """Stateless and thread-safe."""

    finish_reasons: Mapping[str, Reason | None]  # None: a good end. Unknown ones are INCOMPLETE.

    def receive(self, asked: Asked, status: int, content_type: str, body: bytes) -> Received:
        """Read a whole JSON answer. Never fails: what is not one is `gist.failed`."""
        ...

    def recorder(self, asked: Asked, *, usage_asked: bool, max_bytes: int) -> Recorder:
        """`usage_asked`: what the upstream was asked, by the client or on its behalf.

        Beyond `max_bytes` nothing is kept any more and `end` gives None.
        """
        ...

    def relay(
        self,
        asked: Asked,
        annotate: Callable[[], bytes] | None,
        *,
        strip_usage: bool = False,
    ) -> Relay:
        """`annotate` is called once, at the event that carries the marks.

        `strip_usage`: the upstream was asked for usage on behalf of a client that did not ask.
        """
        ...

    def annotate(self, body: bytes, annotation: bytes) -> bytes:
        """A live JSON answer with the marks in it."""
        ...

    def prepare(self, reply: Reply) -> Prepared: ...

    def fresh_id(self) -> str: ...

    def ask_usage(self, raw: bytes, body: dict[str, Any]) -> bytes:
        """The request's bytes, asking for usage in the stream too."""
        ...

    def error(
        self, status: int, message: str, *, type: str = "", code: str = "", param: str = ""
    ) -> bytes:
        """An error in the protocol's shape. An empty `type` is chosen by `status`."""
        ...
