"""What a tenant's hits in one namespace and language have taught: a budget, entries' histories.

    draw ──► (the model answers, a judge compares) ──► Result ──► pending ──► settled ──► here
                                                                    in one transaction of the store

Results are entered into what the store holds at that moment, so several processes add to one
account and none forgets what another found. Between two such moments, and where there is no store
or it fails, they count here: an alarm waits for nobody.
"""

from __future__ import annotations

import threading
from collections import ChainMap, OrderedDict, deque
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.meaning.audit.budget import Budget, Draw, Event, Shown, Standing
from thinkonce.meaning.audit.refuted import PAIR_BYTES
from thinkonce.meaning.verdict.calibration import logit
from thinkonce.meaning.verdict.grounds import Grounds
from thinkonce.meaning.verdict.learning import (
    SHIPPED,
    Belief,
    History,
    Prior,
    belief,
    careful,
    fit_prior,
    posterior,
)

__all__ = ("HEAD", "RESET", "Account", "Happened", "Result")

HEAD = b""  # the name of the budget in the ledger; all others are entries and pairs
PAIR = b"pair "  # begins the name of a pair; with its bytes it is no entry's length
MOST_ENTRIES = 2000  # whose histories are held, as many as the store keeps
MOST_PAIRS = 2000  # remembered as audited
MOST_PENDING = 5000  # results that wait for the store
REFIT = 200  # observations between two fits of the prior
FITTED = 500  # entries that it is fitted to: 0.2 s
RESET = "reset"
REPORTED_SHARE = 0.03  # of what was compared: as many reports are learned from
FREE_REPORTS = 5  # and that many in any case

_encode = msgspec.msgpack.Encoder().encode
_history = msgspec.msgpack.Decoder(History).decode
_budget = msgspec.msgpack.Decoder(Budget).decode
_term = msgspec.msgpack.Decoder(int).decode


class Result(NamedTuple):
    """What comparing two answers came to. `draw` None: no audit, but something to learn.

    `score` is the verdict's, of the entry for that question; `entry` b"": nothing to learn. `pair`
    tells both questions (`refuted.pair_of`); b"": not known, and counted however often it comes.
    """

    draw: Draw | None
    entry: bytes
    score: float
    is_wrong: bool
    pair: bytes = b""


class Happened(NamedTuple):
    """An event, and how things stand after it."""

    event: Event | str
    shown: Shown


class Account:
    """Thread-safe. `group` names it in the store; `untouched` is the budget before any audit.

    `tenant`: the digest that its partitions are made from; "" where there is but one.
    """

    def __init__(
        self, group: str, untouched: Budget, namespace: str, grounds: Grounds, tenant: str = ""
    ) -> None:
        self.group, self.namespace, self.grounds = group, namespace, grounds
        self.tenant = tenant
        self.looked_at = 0.0  # when the store was read last, on the monotonic clock
        self.lost = 0  # results that nobody could keep
        self._first = _encode(untouched)
        self._stored = self._first  # what the store was last seen to hold
        self._budget = untouched
        self._pending: deque[Result | str] = deque()
        self._histories: OrderedDict[bytes, History] = OrderedDict()
        self._beliefs: dict[bytes, Belief] = {}
        self._prior: Prior = SHIPPED  # fitted to the entries
        self._unknown = belief(SHIPPED)  # of an entry without history
        self._learned = 0
        self._compared = self._reported = 0  # what was learned by comparing, and by being told
        # Pairs and the term in which they were audited: as stored, by what is pending, both, and
        # those drawn, whose results are on their way.
        self._pairs: OrderedDict[bytes, int] = OrderedDict()
        self._fresh: dict[bytes, int] = {}
        self._audited: ChainMap[bytes, int] = ChainMap(self._fresh, self._pairs)
        self._drawn: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()
        on_fork(self._in_child)

    # -- what rulings ask --------------------------------------------------------------------

    @property
    def step(self) -> int:
        """The loosest band that is served; -1: none."""
        return self._budget.step

    @property
    def is_off(self) -> bool:
        """Not even looked up, until somebody resets it."""
        return self._budget.standing is Standing.OFF

    def sure(self, entry: bytes, score: float) -> float:
        """The logit of P(right), the entry's history taken in; about 2 to 4 µs."""
        return logit(careful(self._beliefs.get(entry, self._unknown), score))

    def draw(self, band: int, dice: float, pair: bytes = b"") -> Draw | None:
        """Whether a would-be hit of `band` is audited; `dice` is uniform on 0..1.

        A pair is audited once a term. That it is passed over is known before any result, so it is
        a bet of nothing, and evidence stays an e-process: for hits whose pair is not audited yet.
        Of the others those found right add no error and those found wrong are served no more
        (`refuted`), so what is bounded for the former is bounded for all.
        """
        with self._lock:
            if self.is_off or self._is_drawn(pair):
                return None
            draw = self._budget.draw(band, dice)
            if draw is not None and pair:
                _add_pairs(self._drawn, {pair: draw.term})
            return draw

    def _is_drawn(self, pair: bytes) -> bool:
        term = self._budget.term
        return pair != b"" and term in (self._drawn.get(pair), self._audited.get(pair))

    def shown(self) -> Shown:
        with self._lock:
            return self._budget.shown()

    @property
    def alarms(self) -> int:
        return self._budget.alarms

    @property
    def head(self) -> bytes:
        """The budget, as the store keeps it under HEAD."""
        with self._lock:
            return _encode(self._budget)

    @property
    def entries(self) -> int:
        """How many entries have a history."""
        return len(self._histories)

    # -- what comparing tells ----------------------------------------------------------------

    def enter(self, result: Result | str) -> list[Happened]:
        """Count it here, and keep it for the store. What it brought about."""
        with self._lock:
            if len(self._pending) >= MOST_PENDING:
                self.lost += 1
                return []
            self._pending.append(result)
            self._learn(result)
            return settle(self._budget, [result], self._audited)

    def compared(self) -> None:
        """Two answers were: as many more may be told of."""
        with self._lock:
            self._compared += 1

    def report(self, entry: bytes, score: float) -> list[Happened] | None:
        """Somebody says that `entry` is wrong. None where reports would outweigh comparisons:
        who reports is no random sample, and what is fitted to it decides for others as well."""
        with self._lock:
            if self._reported >= max(FREE_REPORTS, REPORTED_SHARE * self._compared):
                return None
            self._reported += 1
        return self.enter(Result(None, entry, score, True))

    @property
    def waiting(self) -> int:
        return len(self._pending)

    def keep_here(self) -> None:
        """There is no store that results could wait for."""
        with self._lock:
            self._stored = _encode(self._budget)
            self._pending.clear()
            _add_pairs(self._pairs, self._fresh)
            self._fresh.clear()

    def settling(self) -> tuple[list[Result | str], set[bytes]]:
        """What the store has not got yet, and the names that are written for it."""
        with self._lock:
            results = list(self._pending)
        return results, {HEAD, *map(_entry_of, results), *map(_name_of, results)}

    def written(
        self, results: Sequence[Result | str], held: Mapping[bytes, bytes]
    ) -> dict[bytes, bytes]:
        """What the store is to hold: `held` and the results. Pure, for a transaction."""
        budget, pairs = self._read(held.get(HEAD, self._stored)), _pairs(held)
        settle(budget, results, pairs)
        histories = _histories(held)
        _add(results, histories)
        return (
            {HEAD: _encode(budget)}
            | {name: _encode(history) for name, history in histories.items()}
            | {PAIR + pair: _encode(term) for pair, term in pairs.items()}
        )

    def settled(self, results: Sequence[Result | str], rows: Mapping[bytes, bytes]) -> None:
        """`rows` are in the store now, and `results` in them."""
        with self._lock:
            for _ in results:
                self._pending.popleft()
            self._take(rows)

    def seen(self, rows: Mapping[bytes, bytes]) -> None:
        """What the store holds: others' audits too. Pending results are counted on top of it."""
        with self._lock:
            self._take(rows)

    def _take(self, rows: Mapping[bytes, bytes]) -> None:
        self._stored = rows.get(HEAD, self._stored)
        _add_pairs(self._pairs, _pairs(rows))
        self._fresh.clear()
        budget = self._read(self._stored)
        settle(budget, self._pending, self._audited)
        self._budget = budget
        fresh = _histories(rows)
        _add((one for one in self._pending if _entry_of(one) in fresh), fresh)
        for name, history in fresh.items():
            self._keep(name, history)

    def _read(self, data: bytes) -> Budget:
        try:
            return _budget(data)
        except (msgspec.DecodeError, ValueError, UnicodeDecodeError):
            return _budget(self._first)  # written by a release that is no more, or damaged

    # -- histories ---------------------------------------------------------------------------

    def _learn(self, result: Result | str) -> None:
        if not isinstance(result, str) and result.entry:
            history = self._histories.get(result.entry) or History()
            history.add(result.score, not result.is_wrong)
            self._keep(result.entry, history)
            self._learned += 1

    def _keep(self, entry: bytes, history: History) -> None:
        self._histories[entry] = history
        self._histories.move_to_end(entry)
        self._beliefs[entry] = belief(self._prior, history.weighted())
        if len(self._histories) > MOST_ENTRIES:
            oldest, _ = self._histories.popitem(last=False)
            self._beliefs.pop(oldest, None)

    def refit(self) -> bool:
        """Fit the prior to the entries, once in REFIT observations; takes up to 0.2 s."""
        with self._lock:
            if self._learned < REFIT:
                return False
            self._learned = 0
            recent = [history.weighted() for history in self._histories.values()][-FITTED:]
        prior = fit_prior(recent)
        with self._lock:
            self._prior, self._unknown = prior, belief(prior)
            self._beliefs = {
                entry: self._beliefs[entry]._replace(fitted=posterior(prior, history.weighted()))
                for entry, history in self._histories.items()
            }
        return True

    def _in_child(self) -> None:
        free_after_fork(self._lock)
        self._pending.clear()  # the parent's to write


def settle(
    budget: Budget, results: Iterable[Result | str], audited: MutableMapping[bytes, int]
) -> list[Happened]:
    """Enter results, in their order; RESET is one of them. `audited`: pairs that count no more."""
    found = []
    for result in results:
        if isinstance(result, str):
            budget.reset()
            found.append(Happened(RESET, budget.shown()))
        elif result.draw is not None and _is_first(result.pair, result.draw.term, audited):
            event = budget.audited(result.draw, result.is_wrong)
            if event is not None:
                found.append(Happened(event, budget.shown()))
    return found


def _is_first(pair: bytes, term: int, audited: MutableMapping[bytes, int]) -> bool:
    """Whether it was not audited in that term; from now on it was."""
    if not pair:
        return True
    if audited.get(pair, -1) >= term:
        return False
    audited[pair] = term
    return True


def _add_pairs(held: OrderedDict[bytes, int], pairs: Mapping[bytes, int]) -> None:
    for pair, term in pairs.items():
        held[pair] = term
        held.move_to_end(pair)
    while len(held) > MOST_PAIRS:
        held.popitem(last=False)


def _name_of(result: Result | str) -> bytes:
    """Of its pair in the ledger; HEAD: it has none."""
    return HEAD if isinstance(result, str) or not result.pair else PAIR + result.pair


def _is_pair(name: bytes) -> bool:
    return name.startswith(PAIR) and len(name) == len(PAIR) + PAIR_BYTES


def _entry_of(result: Result | str) -> bytes:
    """b"": it teaches nothing of any."""
    return b"" if isinstance(result, str) else result.entry


def _add(results: Iterable[Result | str], histories: dict[bytes, History]) -> None:
    for result in results:
        if not isinstance(result, str) and result.entry:
            history = histories.setdefault(result.entry, History())
            history.add(result.score, not result.is_wrong)


def _histories(rows: Mapping[bytes, bytes]) -> dict[bytes, History]:
    """What is damaged is as good as none."""
    found = {}
    for name, data in rows.items():
        if name != HEAD and not _is_pair(name):
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                found[name] = _history(data)
    return found


def _pairs(rows: Mapping[bytes, bytes]) -> dict[bytes, int]:
    """The same of pairs: the term in which they were audited."""
    found = {}
    for name, data in rows.items():
        if _is_pair(name):
            with suppress(msgspec.DecodeError):
                found[name.removeprefix(PAIR)] = _term(data)
    return found
