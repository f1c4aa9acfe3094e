"""What the cache saved: calls, tokens, money and time, by whom, for what and when.

    hit ──► account (one per tenant, model, ...): five additions, nothing else
               │ now and then: collect
               ▼
            book: sums by outcome, model, tenant, namespace, tag, hour; bounded

Everything is a whole number, so that sums are exact in whatever order they are made: money in
billionths of a dollar, time in microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from time import gmtime, strftime
from typing import Any

from thinkonce.entry import Meta
from thinkonce.sums import Row, SumRow, added, rows_of

__all__ = (
    "BILLION",
    "CALLS",
    "COLUMNS",
    "DIMENSIONS",
    "EARLIER",
    "ITEMS",
    "KEPT_HOURS",
    "KEPT_NAMES",
    "MICROS",
    "MILLION",
    "NANOS",
    "OTHER",
    "TOKENS",
    "UNPRICED",
    "Account",
    "Book",
    "Repeats",
    "Saved",
    "Savings",
    "by_dimension",
    "nanos",
    "totals",
)

BILLION, MILLION = 10**9, 10**6
# Names kept of what clients may choose, and how many there may be before that is looked after.
KEPT_NAMES, MOST_NAMES = 100, 200
KEPT_HOURS = 7 * 24
MOST_HOURS = KEPT_HOURS + 24
OTHER, EARLIER = "other", "earlier"
# Accounts that wait to be collected, and those that are found again by what they are for.
MOST_WAITING, MOST_KNOWN = 1000, 4000
MOST_REPEATS = 4000  # likewise; a hundred bytes each
LONGEST_NAME = 200  # characters of a name that a client chose

COLUMNS = ("calls", "items", "tokens", "nanos", "micros", "priced", "unpriced", "estimated")
CALLS, ITEMS, TOKENS, NANOS, MICROS, PRICED, UNPRICED, ESTIMATED = range(len(COLUMNS))
DIMENSIONS = ("outcome", "model", "tenant", "namespace", "tag", "hour")
NOTHING = (0,) * len(COLUMNS)


class Saved(StrEnum):
    """How a call came to be saved."""

    HIT = "hit"  # a live entry answered
    STALE = "stale"  # an expired entry answered
    COALESCED = "coalesced"  # another request's call under way answered
    PARTIAL = "partial"  # some inputs of an embeddings request were known; the call was made


class Account:
    """What answers of one kind saved since they were collected. For one thread.

    `priced`: their money is known. `estimated`: their tokens are, for want of a usage.
    """

    __slots__ = (
        "_touched", "calls", "estimated", "items", "kind", "meta", "micros", "nanos", "priced",
        "records", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        kind: Saved,
        meta: Meta,
        priced: bool,
        estimated: bool,
        touched: Callable[[Account], None],
    ) -> None:
        self.kind, self.meta, self.priced, self.estimated = kind, meta, priced, estimated
        self._touched = touched
        self.records = self.calls = self.items = self.tokens = self.nanos = self.micros = 0

    def add(self, tokens: int, nanos: int, micros: int, times: int = 1) -> None:
        """One saved call, or several that saved the same."""
        if not self.records:
            self._touched(self)
        self.records += times
        self.tokens += times * tokens
        self.nanos += times * nanos
        self.micros += times * micros

    def add_part(self, calls: int, items: int, tokens: int, nanos: int, micros: int) -> None:
        """What saved less than a call, or more than one answer: `calls` is 0 or 1."""
        self.add(tokens, nanos, micros)
        self.calls += calls - 1
        self.items += items

    def take(self) -> Row:
        """The row of what was added, which is then zero again."""
        records, calls = self.records, self.records + self.calls
        row = [calls, self.items, self.tokens, self.nanos, self.micros, 0, 0, 0]
        row[PRICED if self.priced else UNPRICED] = records
        row[ESTIMATED] = records if self.estimated else 0
        self.records = self.calls = self.items = self.tokens = self.nanos = self.micros = 0
        return row


class Repeats:
    """Calls that one answer saves, again and again: only their number is kept until `collect`.

    Whoever adds to `times` gives it to `Savings.wait` before the first. For one thread.
    """

    __slots__ = ("_account", "_saved", "_told", "times")

    def __init__(
        self,
        account: Account,
        saved: tuple[int, int, int],
        told: Callable[[int], None],
    ) -> None:
        """`saved`: tokens, nanos and micros, each time. `told` gets their number with `settle`."""
        self._account, self._saved, self._told = account, saved, told
        self.times = 0

    def settle(self) -> None:
        """Add to the account what has come together."""
        times, self.times = self.times, 0
        self._account.add(*self._saved, times)
        self._told(times)


class Book:
    """Sums by dimension and name, bounded: the greatest names are kept, the rest is `other`.

    Rows may come from another release: columns and dimensions that are not ours are left out.
    """

    __slots__ = ("rows",)

    def __init__(self, rows: Iterable[SumRow] = ()) -> None:
        self.rows: dict[str, dict[str, Row]] = {dimension: {} for dimension in DIMENSIONS}
        for dimension, name, row in rows:
            self.add(dimension, name, row)

    def __bool__(self) -> bool:
        return any(self.rows.values())

    def add(self, dimension: str, name: str, row: Row) -> None:
        names = self.rows.get(dimension)
        if names is None:
            return
        names[name] = added(names.get(name, NOTHING), row)[: len(COLUMNS)]
        if len(names) > (MOST_HOURS if dimension == "hour" else MOST_NAMES):
            fold(names, dimension)

    def enter(self, account: Account, hour: str) -> None:
        """What `account` holds, in every dimension. An answer with two tags is in both."""
        row, meta = account.take(), account.meta
        self.add("outcome", account.kind.value, row)
        self.add("model", _short(meta.model), row)
        self.add("tenant", _short(meta.tenant), row)
        self.add("namespace", _short(meta.namespace), row)
        self.add("hour", hour, row)
        for tag in {*meta.tags} or ("",):
            self.add("tag", _short(tag), row)

    def merge(self, other: Book) -> None:
        for dimension, name, row in other:
            self.add(dimension, name, row)

    def __iter__(self) -> Iterator[SumRow]:
        return rows_of(self.rows)

    def total(self) -> Row:
        rows = self.rows["outcome"].values()
        return [sum(row[column] for row in rows) for column in range(len(COLUMNS))]


def _weight(row: Row) -> tuple[int, int]:
    """Its money, then its tokens; a row of another release may have neither."""
    return (row[NANOS] if len(row) > NANOS else 0, row[TOKENS] if len(row) > TOKENS else 0)


def fold(names: dict[str, Row], dimension: str) -> list[str]:
    """Put all but the greatest names, or the latest hours, into one; returns those that went."""
    rest = EARLIER if dimension == "hour" else OTHER
    known = [name for name in names if name != rest]
    if dimension == "hour":
        known.sort(reverse=True)
    else:
        known.sort(key=lambda name: _weight(names[name]), reverse=True)
    gone = known[KEPT_HOURS if dimension == "hour" else KEPT_NAMES :]
    into: Sequence[int] = names.get(rest, NOTHING)
    for name in gone:
        into = added(into, names.pop(name))
    names[rest] = [*into]
    return gone


class Savings:
    """The accounts of one process. For one thread; memory is bounded.

    `wall` gives seconds since the epoch. `wake` is called when something begins to wait for
    `collect`, which should follow within seconds: it sets the hour.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.book = Book()
        self._wall = wall
        self._waiting: list[Account] = []
        self._repeats: list[Repeats] = []
        self._known: dict[tuple[Saved, Meta, bool, bool], Account] = {}

    def account(
        self, kind: Saved, meta: Meta, *, priced: bool = True, estimated: bool = False
    ) -> Account:
        """What answers of this kind add to; it may be kept and added to at any time."""
        what = (kind, meta, priced, estimated)
        account = self._known.get(what)
        if account is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()  # whoever holds one of them goes on using it
            account = self._known[what] = Account(kind, meta, priced, estimated, self._touched)
        return account

    def collect(self) -> Book:
        """Bring everything into the book, which is returned: it stays this object's own."""
        if self._repeats:
            repeats, self._repeats = self._repeats, []
            for each in repeats:
                each.settle()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            hour = strftime("%Y-%m-%dT%HZ", gmtime(self._wall()))
            for account in waiting:
                self.book.enter(account, hour)
        return self.book

    def take(self) -> Book:
        """Everything since the last `take`, for whoever keeps it from now on."""
        book, self.book = self.collect(), Book()
        return book

    def wait(self, repeats: Repeats) -> None:
        """Something is about to be added to `repeats`, which holds nothing so far."""
        if not self._repeats:
            self.wake()
        elif len(self._repeats) >= MOST_REPEATS:
            self.collect()
        self._repeats.append(repeats)

    def _touched(self, account: Account) -> None:
        if not self._waiting:
            self.wake()
        elif len(self._waiting) >= MOST_WAITING:
            self.collect()
        self._waiting.append(account)


def nanos(usd: float | None) -> int:
    """Dollars as a whole number of billionths; 0 where they are not known."""
    return 0 if usd is None else round(usd * BILLION)


def totals(book: Book) -> dict[str, int | float | None]:
    """In one line, for who wants no more. US dollars (None: no price was known) and seconds."""
    total = _numbers(book.total())
    return {f"saved_{name}": total[name] for name in ("tokens", "usd", "seconds")}


def by_dimension(book: Book) -> dict[str, Any]:
    """For people and programs: `totals` and `by_outcome` ... `by_hour`, the greatest first."""
    found: dict[str, Any] = {"totals": _numbers(book.total())}
    for dimension, names in book.rows.items():
        if dimension == "hour":
            order = sorted(names)
        else:
            order = sorted(names, key=lambda name: (-names[name][NANOS], -names[name][TOKENS]))
        found[f"by_{dimension}"] = {name: _numbers(names[name]) for name in order}
    return found


def _numbers(row: Row) -> dict[str, Any]:
    """`usd` is None where no price was known; `unpriced` answers are not in it."""
    unknown = row[UNPRICED] and not row[PRICED]
    return {
        "calls": row[CALLS],
        "items": row[ITEMS],
        "tokens": row[TOKENS],
        "usd": None if unknown else row[NANOS] / BILLION,
        "seconds": row[MICROS] / MILLION,
        "unpriced": row[UNPRICED],
        "estimated": row[ESTIMATED],
    }


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME]
