"""A stream of chunks, taken in as it comes: chat and text completions."""

from __future__ import annotations

from thinkonce.protocols.bounds import bounded, encodable
from thinkonce.protocols.chunks.reader import ChunkReader
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.intake import Intake
from thinkonce.protocols.reply import Gist, Reply, Shape
from thinkonce.protocols.sse import DONE, Event
from thinkonce.protocols.usage import Usage, asked_tokens, counted, estimated_usage, usage_text

__all__ = ("ChunkRecorder",)


class ChunkRecorder(Intake):
    """See `dialect.Recorder`."""

    def __init__(self, asked: Asked, *, usage_asked: bool, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._asked = asked
        self._usage_asked = usage_asked
        self._reader = ChunkReader(asked.answers, keep_text=asked.wants_json)

    def note(self, event: Event, data: bytes) -> None:
        if data == DONE:
            self.done = True
            return
        try:
            event.flags = self._reader.read(data)
        except (ValueError, OverflowError, RecursionError):
            self.failed = True
        if event.name == "error":
            self.failed = True

    def gist(self) -> Gist:
        return Gist(
            done=self.done,
            failed=self.failed or self._reader.failed,
            oversized=self.oversized,
            odd=self._reader.odd,
            finishes=self._reader.ordered_finishes(),
            empty=self._reader.empty,
            texts=self._reader.texts(),
            size=self.size,
        )

    def end(self) -> Reply | None:
        self.rest()
        if not self.done or self.failed or self._reader.failed or self.oversized:
            return None
        reader = self._reader
        usage = reader.usage
        data = self._data()
        try:
            tokens = counted(usage) if usage is not None else self._estimated(data)
        except (ValueError, RecursionError):  # in a member that nobody has looked at so far
            self.failed = True
            return None
        return Reply(
            status=200,
            content_type="text/event-stream",
            shape=Shape.STREAM,
            # A line end inside JSON is white space: one line makes the event simple to frame.
            events=tuple([each.replace(b"\n", b" ") if b"\n" in each else each for each in data]),
            usage=usage_text(usage) if usage is not None else estimated_usage(tokens),
            usage_asked=self._usage_asked,
            usage_estimated=usage is None,
            finishes=tuple(encodable(finish or "") for finish in reader.ordered_finishes()),
            model=encodable(reader.model),
            source_id=encodable(reader.id),
            created=bounded(reader.created),
            prompt_tokens=tokens.prompt_tokens,
            completion_tokens=tokens.completion_tokens,
        )

    def _data(self) -> list[bytes]:
        data: list[bytes] = []
        for event in self.events:
            if event.data == DONE:
                break
            if event.data is not None:
                data.append(event.data)
        return data

    def _estimated(self, data: list[bytes]) -> Usage:
        b"".join(data).decode()  # raises for a member that no reader has looked into
        return Usage(asked_tokens(self._asked), self._reader.said.tokens)
