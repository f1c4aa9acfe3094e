"""The endpoints of one event loop, and the calls under way there.

A request that the endpoints cannot take is raised as `NotOurs`: whoever asked then asks the wrapped
transport itself, as if there were no cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from time import perf_counter, time

from thinkonce.adapters.answering import Answering
from thinkonce.adapters.options import GROUP_KEY, Plan
from thinkonce.adapters.question import ASKED, Question
from thinkonce.adapters.shares import at_base
from thinkonce.engine.endpoints import Making, beside_of, endpoints_of, prices_of, readers
from thinkonce.engine.erring import send_error
from thinkonce.engine.http import Call, ClientGone, HttpError, Message, send_ready
from thinkonce.engine.means import Means
from thinkonce.engine.passing import Passing
from thinkonce.engine.request_ids import RequestIds
from thinkonce.engine.served import Served
from thinkonce.engine.world import GatewayWorld
from thinkonce.entry import Meta
from thinkonce.errors import RequestError, UpstreamError
from thinkonce.insight.savings import MILLION, Account, Saved, Savings
from thinkonce.request.headers import EVERY, is_credential
from thinkonce.tally import Tally
from thinkonce.upstream.failure import TimedOut
from thinkonce.upstream.pools import Pool, Pools
from thinkonce.upstream.request import Sender
from thinkonce.web.exchange import is_request_id

__all__ = ("Bench", "NotOurs")

log = logging.getLogger("thinkonce")

# Base URLs whose endpoints are kept at a time; one that comes again has them made anew.
MOST_BASES = 16
# What an endpoint says to a request that no provider could read either.
_ITS_OWN_BUSINESS = (400, 404, 413, 415)


class NotOurs(Exception):  # no error: the request goes another way
    """The endpoints cannot take this request; nobody was asked for it."""


class Bench:
    """Belongs to one event loop. `share`: what it may use of the bounds beside the cache's own."""

    def __init__(self, plan: Plan, sender: Sender, share: float = 1.0) -> None:
        self._plan, self._sender = plan, sender
        cache = plan.cache
        shelf = cache.shelf
        self._world = GatewayWorld(
            cache.setting,
            shelf.flights,
            shelf.tier_failed,
            max_bytes=plan.settings.cache.max_entry_bytes,
            finish_abandoned=plan.settings.gateway.finish_abandoned,
        )
        self.tally = Tally()
        self._counts = _Counts(self.tally)
        self._prices = prices_of(plan.settings)
        self.beside = beside_of(plan.settings, self._prices, share)
        self._bases: OrderedDict[str, dict[str, Served]] = OrderedDict()
        self._ids = RequestIds()
        self._serving: set[asyncio.Task[None]] = set()
        cache.register(self)

    async def ask(self, question: Question) -> Answering:
        """An answer that has begun. Raises NotOurs, UpstreamError, and what a bug raises."""
        endpoint = self._endpoint(question)
        answering = Answering(question.body)
        call = self._call(question, answering)
        message = await answering.receive()
        plain = endpoint.answer_inline(call, message)
        if plain is not None:
            await send_ready(call, *plain)
            self.tally.note(call.outcome)
            return answering
        task = asyncio.get_running_loop().create_task(
            self._serve(endpoint, call, message, question, answering)
        )
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        timer = self._patience(question, answering)
        try:
            await answering.begin()
        except BaseException:
            answering.leave()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not question.is_asked:
            answering.gap = question.timeouts.get("read")
        return answering

    async def close(self) -> None:
        """End what is under way."""
        # Those who wait go first: whoever is left by a call that ends would make it anew.
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await self._world.close()

    # -- inside --------------------------------------------------------------------------

    @staticmethod
    def _patience(question: Question, answering: Answering) -> asyncio.TimerHandle | None:
        """Ends the wait for another's call; of its own the wrapped transport keeps the time."""
        seconds = question.patience
        if seconds is None:
            return None

        def give_up() -> None:
            if not question.is_asked:
                answering.fail(TimedOut(f"the call that is waited for took over {seconds:g} s"))

        return asyncio.get_running_loop().call_later(seconds, give_up)

    async def _serve(
        self,
        endpoint: Served,
        call: Call,
        message: Message,
        question: Question,
        answering: Answering,
    ) -> None:
        ASKED.set(question)
        try:
            await self._answer(endpoint, call, message, question)
            if not answering.is_complete:
                answering.fail(NotOurs())
        except (UpstreamError, NotOurs) as error:
            answering.fail(error)
        except ClientGone:
            answering.fail(ClientGone())
        except asyncio.CancelledError:
            answering.fail(UpstreamError("the transport was closed"))
            raise
        except Exception as error:
            log.exception("request %s: the cache failed", call.id.decode("latin-1"))
            answering.fail(error if call.status else NotOurs())
        finally:
            self.tally.note(call.outcome)

    async def _answer(
        self, endpoint: Served, call: Call, message: Message, question: Question
    ) -> None:
        try:
            await endpoint(call, message)
        except RequestError as error:
            await self._send_error(call, HttpError.of(error), question)
        except HttpError as error:
            await self._send_error(call, error, question)

    async def _send_error(self, call: Call, error: HttpError, question: Question) -> None:
        if error.status in _ITS_OWN_BUSINESS and not question.has_controls:
            raise NotOurs from error
        await send_error(call, error)

    def _call(self, question: Question, answering: Answering) -> Call:
        named = dict(question.headers)
        headers = [*question.headers, *(c for c in self._plan.controls if c[0] not in named)]
        if self._plan.group:
            headers = [GROUP_KEY, *(h for h in headers if not is_credential(h[0]))]
        path = f"/v1/{question.name}"
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": question.query,
            "headers": headers,
            "state": {},
        }
        call = Call(scope, answering.receive, answering.send, perf_counter())
        call.cuts = True
        sent = named.get(b"x-request-id", b"")
        call.id = sent if sent and is_request_id(sent) else next(self._ids)
        return call

    def _endpoint(self, question: Question) -> Served:
        known = self._bases.get(question.base)
        if known is None:
            known = self._bases[question.base] = self._endpoints_at(question.base)
            if len(self._bases) > MOST_BASES:
                self._bases.popitem(last=False)
        else:
            self._bases.move_to_end(question.base)
        return known[question.name]

    def _endpoints_at(self, base: str) -> dict[str, Served]:
        plan, sender = self._plan, self._sender
        pools = Pools([Pool(plan.pool or base, plan.upstream(base))])
        shelf, passing = plan.cache.shelf, Passing(sender, pools, EVERY)
        means = Means(shelf, self._world, self._counts, self._prices, sender, passing)
        reads = readers(plan.settings, pools, shelf)
        return endpoints_of(Making(plan.settings, means, reads, at_base(self.beside, base)))


class _Counts:
    """A `Counting` for the cache's own `stats()`, which tell outcomes and model time only."""

    def __init__(self, tally: Tally) -> None:
        self.savings = _Savings(tally)

    def upstream_took(self, seconds: float) -> None: ...

    def learn_model(self, model: str) -> None: ...

    def coalesced(self) -> None: ...

    def cache_failed(self) -> None: ...


class _Savings(Savings):
    """Model time alone, at once."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(time)
        self._tally = tally

    def account(
        self, kind: Saved, meta: Meta, *, priced: bool = True, estimated: bool = False
    ) -> Account:
        return _Account(self._tally, kind, meta)


class _Account(Account):
    __slots__ = ("_tally",)

    def __init__(self, tally: Tally, kind: Saved, meta: Meta) -> None:
        super().__init__(kind, meta, True, False, lambda _: None)
        self._tally = tally

    def add(self, tokens: int, nanos: int, micros: int, times: int = 1) -> None:
        self._tally.probed_seconds += times * micros / MILLION
