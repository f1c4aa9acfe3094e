"""What methods mean, by what was measured of them.

    request "link"   ->  ladder: link 16 -> link 32 -> link 64 -> exact      served: one of these
    request "auto"   ->  the cheapest setting that holds, or exact
    every answer     ->  a budget, and now and then an audit beside it

Chunks are encoded behind a fixed text (`stock.py`), so one state of a chunk does for all methods,
all settings, and whatever stands in front of it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from thinkonce.kv.generation.exact import ExactReader
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.causes import Fidelity
from thinkonce.kv.prefix.prompt import Method, Prompt
from thinkonce.kv.reuse.assembly import LEAST_TOKENS, MOST_ROWS, method_of
from thinkonce.kv.reuse.audits import PLACES, Audits, Comparing, Pending
from thinkonce.kv.reuse.auto import Auto
from thinkonce.kv.reuse.blend import Gradual
from thinkonce.kv.reuse.budget import AuditBudget
from thinkonce.kv.reuse.ladder import EXACT, Case, Effort, Ladder
from thinkonce.kv.reuse.latest import Latest
from thinkonce.kv.reuse.layout import Choice, Layout
from thinkonce.kv.reuse.link import Link
from thinkonce.kv.reuse.looked import Looked
from thinkonce.kv.reuse.meter import Audit, Key, Meter
from thinkonce.kv.reuse.published import bounds_told, fidelity_of, in_force, measures
from thinkonce.kv.reuse.rotation import NotRelocatable, Rotation
from thinkonce.kv.reuse.stock import STOCK
from thinkonce.kv.reuse.taught import Taught
from thinkonce.kv.reuse.watched import Watched
from thinkonce.kv.reuse.ways import Way

__all__ = ("MeasuredWays", "measured_ways", "stock_of")

_logger = logging.getLogger("thinkonce.kv")
_LEFT_BOUNDS = (
    "%s left the bounds of fidelity: reuse %r does more for such prompts from now on",
    "answers of %s left the bounds of fidelity; reuse 'exact' computes all (method %r)",
)

LINK_TOKENS = 16
_LINKS = (Link(0), Link(16), Link(32), Link(64))
_BLENDS: tuple[Choice, ...] = tuple(  # by the word that asks for it
    Gradual(ratio, "both", called=f"blend {ratio:g}") for ratio in (0.15, 0.25, 0.4)
)
_LOOKS: tuple[Choice, ...] = (Looked(0.15), Looked(0.3, link=8), Looked(0.4, link=8))
_MOST_STOCK = 384  # tokens, and of a short context an eighth
_MODULES = "modules"
_ALL = ""  # the namespace under which all traffic is counted, for statistics


def stock_of(tokenizer: Any, context_tokens: int) -> tuple[int, ...]:
    """The tokens that chunks are encoded behind, with the one that begins every text, if any."""
    return tuple(tokenizer.encode(STOCK)[: min(_MOST_STOCK, context_tokens // 8)])


class MeasuredWays:
    """`Ways` whose settings follow audits. `way` is for any thread, the rest for the model's."""

    def __init__(
        self,
        stock: Sequence[int],
        layers: int,
        audits: Audits,
        meter: Meter | None = None,
        link: int = LINK_TOKENS,
        key: bytes = b"",
    ) -> None:
        """`link`: tokens of each chunk that "link" computes again at first; 0: none. `key`: what
        names of namespaces are hashed with.
        """
        self._stock, self._layers, self.audits = tuple(stock), layers, audits
        self._meter = meter or Meter()
        links = (Link(link), *(each for each in _LINKS if each.first > link))
        self._choices: dict[str, Choice] = {
            each.name: each for each in (*_LINKS, *links, *_BLENDS, *_LOOKS)
        }
        measured = list(dict.fromkeys(each.name for each in (*_LINKS, *links, *_LOOKS)))
        self._efforts: dict[str, Effort] = {
            "link": _ladder(links, self._meter),
            "blend": _ladder(_BLENDS, self._meter),
            "auto": Auto(measured, self._meter),
            "modules": Watched(_MODULES, self._meter),
        }
        self._key = key
        self._budgets: Latest[str, AuditBudget] = Latest()
        self._audited: Latest[str, None] = Latest()
        # Told of each audit, and whether it was an alarm.
        self.learned: Callable[[bool], None] = lambda is_alarm: None
        self._answers: Counter[str] = Counter()
        self._alarms = 0
        self._saved = self._spent = 0.0

    def way(self, method: Method, asking: Asking) -> Way | None:
        effort = self._efforts.get(method)
        if effort is None:
            return None
        setting = effort.served(self._case(method, asking))
        return self._way(setting) if setting in self._choices else None

    def fidelity(self, method: str, setting: str, asking: Asking) -> Fidelity | None:
        effort = self._efforts.get(method)
        if effort is None:
            return None
        standing = self._meter.standing(Key(self._namespace(method, asking), setting))
        is_exact = setting == EXACT
        return fidelity_of(
            setting, effort.steps, None if is_exact else standing, self._meter.bounds
        )

    def used(self, way: Way, asking: Asking, reading: Reading) -> None:
        method = method_of(asking.prompt)
        if method is not None:
            tokens = reading.reused.tokens.items()
            saved = sum(count for (of, _), count in tokens if of == method)
            self._answered(method, asking, way.choice.name, saved)

    def answered_exactly(self, asking: Asking) -> None:
        """Because nothing that is measured holds. What might have been saved pays for trials."""
        method = method_of(asking.prompt)
        if method is not None and method in self._efforts:
            self._answered(method, asking, EXACT, None)

    def modules_used(self, asking: Asking, saved: int, computed: int, both: Comparing) -> None:
        """See `modules.auditing.Watch`."""
        namespace = self._namespace(_MODULES, asking)
        self._answers[_MODULES] += 1
        self._efforts[_MODULES].answered(namespace, _MODULES)
        self._saved += saved
        self._budget(namespace).hit(saved)
        cost = len(asking.prompt) + computed + 2 * PLACES
        if self._allows(namespace, cost):
            self.audits.offer_both(asking, _MODULES, _MODULES, namespace, both)

    def of_modules(self, asking: Asking) -> Fidelity | None:
        return self.fidelity(_MODULES, _MODULES, asking)

    def told(self, pending: Pending, audit: Audit | None, spent: int) -> None:
        """What an audit found, and the tokens that it computed."""
        budget = self._budget(pending.namespace)
        budget.audited(spent)
        self._spent += spent
        if audit is None:
            return
        setting, effort = pending.setting, self._efforts[pending.method]
        self._meter.audited(Key(_ALL, setting), audit)
        is_alarm = effort.audited(pending.namespace, setting, audit)
        if is_alarm:
            self._alarms += 1
            budget.alarm()
            _logger.warning(_LEFT_BOUNDS[setting == _MODULES], setting, pending.method)
        self._audited.used(pending.namespace, lambda: None)
        self.learned(is_alarm)

    def taught(self) -> Mapping[str, Taught]:
        """By namespace, the one that was audited last behind the others. For the model's thread."""
        found: dict[str, dict[str, Sequence[Audit]]] = {name: {} for name in self._audited}
        if self._audited:
            found[_ALL] = {}
        for key, audits in self._meter.audits().items():
            if key.namespace in found:
                found[key.namespace][key.setting] = audits
        return {name: self._taught(name, audits) for name, audits in found.items()}

    def _taught(self, namespace: str, audits: Mapping[str, Sequence[Audit]]) -> Taught:
        effort, budget = self._effort(namespace), self._budgets.get(namespace)
        state = effort.state(namespace) if effort is not None else None
        return Taught.of(audits, state, budget.careful if budget is not None else 0)

    def learn(self, taught: Mapping[str, Taught]) -> None:
        """Before the first prompt."""
        for name, each in taught.items():
            for setting in each.audits:
                if setting in self._choices or setting == _MODULES:
                    self._meter.resume(Key(name, setting), each.each(setting))
            if (effort := self._effort(name)) is not None:
                self._budgets[name] = AuditBudget(each.careful)
                if each.state is not None:
                    effort.resume(name, each.state)

    def _effort(self, namespace: str) -> Effort | None:
        """Of the method that it is named by; None of all traffic together."""
        return self._efforts.get(namespace.partition(" ")[0])

    def stats(self) -> dict[str, Any]:
        """By setting: answers, audits, agreement and KL with their 95 % intervals, the verdict.
        Of nobody alone. `in_force`: of how many tenants' namespaces it was served last.
        """
        settings = {}
        standings, served = self._meter.standings(), in_force(self._efforts.values())
        for name in (*self._choices, _MODULES, EXACT):
            told: dict[str, Any] = {"answers": self._answers[name]}
            if (standing := standings.get(Key(_ALL, name))) is not None:
                told |= measures(standing) | {"verdict": standing.verdict.value}
            if name in served:
                told["in_force"] = served[name]
            if len(told) > 1 or self._answers[name]:
                settings[name] = told
        return {
            "bounds": bounds_told(self._meter.bounds),
            "steps": {method: effort.steps for method, effort in self._efforts.items()},
            "settings": settings,
            "alarms": self._alarms,
            "saved_tokens": round(self._saved),
            "audit_tokens": round(self._spent),
            "audits_waiting": self.audits.waiting,
        }

    def _answered(self, method: Method, asking: Asking, setting: str, saved: float | None) -> None:
        try:
            self._count(method, asking, setting, saved)
        except Exception:  # the answer is there: what is wrong with counting it must not cost it
            _logger.exception("an answer with marked parts was not counted")

    def _count(self, method: Method, asking: Asking, setting: str, saved: float | None) -> None:
        case, effort = self._case(method, asking), self._efforts[method]
        self._answers[setting] += 1
        effort.answered(case.namespace, setting)
        wanted = effort.audited_next(case)
        budget = self._budget(case.namespace)
        if saved is None:
            whole = len(asking.prompt) - min(span.start for span in asking.prompt.spans)
            budget.trial(whole - case.cost(wanted) if wanted is not None else 0.0)
        else:
            self._saved += saved
            budget.hit(saved)
        if wanted is None or not asking.terms.reads or case.cost(wanted) > case.exact:
            return
        cost = len(asking.prompt) + case.cost(wanted) + 2 * PLACES
        if self._allows(case.namespace, cost):
            self.audits.offer(asking, self._way(wanted), method, case.namespace)

    def _allows(self, namespace: str, cost: float) -> bool:
        """What waits is not paid yet: in steady state the same sum must not pay for two."""
        budget = self._budget(namespace)
        is_free = budget.is_careful or not self.audits.waits(namespace)
        return budget.allows(cost) and is_free

    def _way(self, setting: str) -> Way:
        return Way(self._choices[setting], lambda front: self._stock)

    def _case(self, method: str, asking: Asking) -> Case:
        layout = _layout(asking.prompt, method)

        def cost(setting: str) -> float:
            return self._choices[setting].plan(layout, self._layers).rows(layout, self._layers)

        worth = min(layout.length - layout.exact, MOST_ROWS * layout.length)
        return Case(self._namespace(method, asking), cost, worth)

    def _namespace(self, method: str, asking: Asking) -> str:
        """Whose traffic is measured together: a tenant's namespace, and each method apart."""
        whose = f"{asking.owner.tenant}|{asking.owner.namespace}".encode()
        hashed = blake2b(whose, key=self._key, digest_size=16, person=b"kv fidelity")
        return f"{method} {hashed.hexdigest()}"

    def _budget(self, namespace: str) -> AuditBudget:
        return self._budgets.used(namespace, AuditBudget)


def measured_ways(
    keeping: Keeping,
    exact: ExactReader,
    stock: Sequence[int],
    link: int = LINK_TOKENS,
    key: bytes = b"",
) -> MeasuredWays | None:
    """Those of a model; None where its keys cannot be moved. `stock`: see `stock_of`."""
    try:
        audits = Audits(keeping, exact, Rotation(keeping.network))
    except NotRelocatable:
        return None
    return MeasuredWays(stock, keeping.shape.layers, audits, link=link, key=key)


def _ladder(choices: Sequence[Choice], meter: Meter) -> Ladder:
    return Ladder([each.name for each in choices], choices[0].name, meter)


def _layout(prompt: Prompt, method: str) -> Layout:
    """As it would be put together, with every chunk that is long enough."""
    marked = [span for span in prompt.spans if span.method == method]
    chunks = [range(s.start, s.end) for s in marked if s.end - s.start >= LEAST_TOKENS]
    return Layout(len(prompt), tuple(chunks), marked[0].start if marked else 0)
