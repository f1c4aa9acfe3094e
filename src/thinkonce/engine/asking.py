"""From the bytes of a request to what is asked, of whom, by whom, and under which key."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from thinkonce.engine.http import Head, HttpError
from thinkonce.engine.plates import Plate, no_plate
from thinkonce.engine.samples import Draw, Samples, is_sampled
from thinkonce.engine.tenants import Tenants
from thinkonce.engine.well_formed import read_json
from thinkonce.entry import Meta, said_bytes
from thinkonce.freshness import Rules
from thinkonce.likeness import Wording
from thinkonce.outcome import Reason
from thinkonce.protocols.dialect import Asked, Speech
from thinkonce.protocols.question import question_in
from thinkonce.protocols.splice import put
from thinkonce.request.canonical import Parsed
from thinkonce.request.controls import Controls, parse_controls, strip_controls
from thinkonce.request.engine_controls import engine_controls
from thinkonce.request.headers import Taken
from thinkonce.request.kept import may_hold_credential, pack
from thinkonce.request.key import Keyer, ignoring, request_parts, wanted_parts
from thinkonce.tiers.tier import Key
from thinkonce.upstream.pools import Pool, Pools

if TYPE_CHECKING:
    from thinkonce.engine.client_rules import ClientRules
    from thinkonce.engine.memo import Known

__all__ = ("Asking", "Reader", "version_free")

MOST_BESIDE_ITEM = 4096  # bytes of a kept request

# A client names it, and it is kept with every answer.
MAX_MODEL = 1024


@dataclass(slots=True, weakref_slot=True)
class Asking:
    """One understood request. `key` is None where the cache is not asked; `bypass` says why.

    `key` is that of sample number `sample`; `draw` is there where the request has several.
    """

    raw: bytes
    body: dict[str, Any]
    asked: Asked
    controls: Controls
    taken: Taken
    tenant: str
    pool: Pool
    key: Key | None
    bypass: Reason | None
    fallback: bool = False  # the pool is asked in another's place
    client: ClientRules | None = None
    member: bytes = b""  # see `Wording`
    draw: Draw | None = None
    sample: int = 0
    # What printed its last plain hit, where that is still there.
    plate: Callable[[], Plate | None] = no_plate
    known: Known | None = None  # what the fast lane knows of requests like it
    used: bool = False  # it had a plain hit since the memo last asked

    def take(self, sample: int | None = None) -> None:
        """Ask for the sample whose turn it is, which ends the turn, or for the one named."""
        if self.draw is None:
            return
        if sample is None:
            sample = self.draw.turn()
            self.draw.advance()
        self.sample, self.key = sample, self.draw.keys[sample]

    def over_quota(self, size: int) -> Reason | None:
        """Why the client may not keep `size` bytes more; if it may, they are counted.

        Its tags and names are kept with them.
        """
        quota = None if self.client is None else self.client.quota
        if quota is None or quota.takes(size + self._said_bytes()):
            return None
        return Reason.QUOTA

    def _said_bytes(self) -> int:
        controls = self.controls
        return said_bytes(controls.tags, controls.namespace, controls.label, self.asked.model)

    def out_of_quota(self, size: int | None) -> Reason | None:
        """What `over_quota` would say of `size` bytes; None: what it has just said."""
        quota = None if self.client is None else self.client.quota
        if quota is None:
            return None
        refused = quota.refused if size is None else not quota.has_room(size + self._said_bytes())
        return Reason.QUOTA if refused else None

    async def measure_quota(self) -> None:
        """To be awaited before `over_quota` is asked."""
        if self.client is not None and self.client.quota is not None:
            await self.client.quota.refresh()

    def meta(self, scope: str, rules: Rules) -> Meta:
        controls = self.controls
        priority = controls.priority
        if not priority and controls.ttl_class:
            priority = rules.ttl_class(controls.ttl_class).priority
        return Meta(
            scope=scope,
            tenant=self.tenant,
            namespace=controls.namespace,
            model=self.asked.model,
            tags=controls.tags,
            priority="pinned" if controls.preload else priority or "medium",
            label=controls.label,
            source=self.pool.name,
        )

    def upstream_body(self) -> bytes:
        """The request's bytes without what is meant for us alone.

        Our own engine gets what it says about attention state.
        """
        keep = engine_controls(self.controls) if self.pool.declared.engine_secret else b""
        if keep or "kv_cache" in self.body or "cache" in self.body:
            return strip_controls(self.raw, self.body, keep)
        return self.raw


class Reader:
    """What all requests of one endpoint are read with."""

    def __init__(
        self,
        dialect: Speech,
        pools: Pools,
        keyer: Keyer,
        tenants: Tenants,
        rules: Rules,
        *,
        forward_headers: Container[bytes] = frozenset(),
        ignore_fields: frozenset[str] = frozenset(),
        cache_remote_media: bool = True,
        keep_requests: bool = True,
        samples: Samples | None = None,
        compares: bool = False,
    ) -> None:
        self._dialect, self._pools, self._keyer = dialect, pools, keyer
        self._tenants, self._rules = tenants, rules
        self._classes = frozenset(rules.ttl_classes)
        self.forward_headers, self._ignore = forward_headers, ignore_fields
        self._ignoring = ignoring(ignore_fields)
        self._cache_remote_media = cache_remote_media
        self._keep_requests = keep_requests
        self._samples = Samples() if samples is None else samples
        self._compares = compares  # questions in other words may be answered here

    @property
    def name(self) -> str:
        return self._dialect.name

    def read(self, call: Head, raw: bytes) -> Asking:
        """Raises HttpError 400, 403, 404, 413, 415 and RequestError for what cannot be served."""
        parsed = read_json(call, raw)
        body = parsed.body
        asked = self._dialect.asks(body)
        if len(asked.model) > MAX_MODEL:
            raise _too_long(asked.model)
        controls = parse_controls(
            body.get("kv_cache"), body.get("cache"), call.headers, self._classes
        )
        self._check_semantic(controls)
        taken = call.taken(self.forward_headers)
        client = call.client
        pool = self._pools.for_model(asked.model)
        if pool is None:
            if client is not None:
                client.check_model(asked.model)
            is_limited = client is not None and client.is_limited
            raise _unknown_model(asked.model, () if is_limited else self._pools.patterns())
        _check_reuse(controls, pool)
        tenant = call.tenant or (client.tenant if client else self._tenants.of(taken.credential))
        if client is not None:
            client.check_model(asked.model)
            client.check_body(body)
            if client.is_limited and parsed.unkeyable:
                raise _could_name_another()
        member = self._member(call, client, taken) if self._compares else b""
        if client is not None or self._tenants.knows(taken.credential):
            # A key of this gateway's is nobody else's business.
            taken = msgspec.structs.replace(taken, credential=())
        taken = self._tenants.as_member(taken)
        bypass = self._bypass(parsed, asked, controls)
        if bypass is None and asked.remote_media:
            controls = self._cap_life(controls)
        asking = Asking(raw, body, asked, controls, taken, tenant, pool, None, bypass)
        asking.client, asking.member = client, member
        if bypass is None:
            asking.key = self._keyer.key_of(self._parts(asking, call.query))
            asking.draw = self._draw(asking, call.query)
        return asking

    def _member(self, call: Head, client: ClientRules | None, taken: Taken) -> bytes:
        """By the key that made the tenant. Several may be shown; the others tell nothing."""
        if call.tenant:
            return self._tenants.somebody(call.tenant)
        if client is not None:
            return self._tenants.client_member(client.name)
        return self._tenants.member(taken.credential)

    def _draw(self, asking: Asking, query: bytes) -> Draw | None:
        most = self._samples.most
        if most == 1 or asking.controls.override or not is_sampled(asking.asked):
            return None
        assert asking.key is not None
        others = [self._keyer.key_of(self._parts(asking, query, n)) for n in range(1, most)]
        return Draw(self._samples, (asking.key, *others))

    def instead_of(self, asking: Asking) -> Iterator[Asking]:
        """What to ask other pools for where the request's own cannot answer: under their keys.

        The client's credential is not shown to them, and no query, which may hold one: pools may
        belong to different parties. Nobody else has a stored response, or a schema.
        """
        if asking.bypass is Reason.STATEFUL or asking.asked.stateful or asking.controls.schema:
            return
        for pool in self._pools.fallbacks(asking.pool):
            yield self._of_pool(asking, pool)

    def _of_pool(self, asking: Asking, pool: Pool) -> Asking:
        raw, body, asked, controls = asking.raw, asking.body, asking.asked, asking.controls
        model = pool.declared.fallback_model
        if model and model != asked.model:
            raw, body = put(raw, "model", msgspec.json.encode(model)), {**body, "model": model}
            asked = self._dialect.asks(body)
        taken = msgspec.structs.replace(asking.taken, credential=())
        other = Asking(raw, body, asked, controls, taken, asking.tenant, pool, None, asking.bypass)
        other.fallback, other.client, other.sample = True, asking.client, asking.sample
        if asking.key is not None:
            other.key = self._keyer.key_of(self._parts(other, b"", other.sample))
        return other

    def parts(self, query: bytes, asking: Asking) -> bytes:
        """What the key of `asking` is made of."""
        assert asking.key is not None
        local = asking.key.local
        if isinstance(local, bytes) and local is not asking.key.digest:
            return local  # a large request's key keeps its digest alone
        return self._parts(asking, query, asking.sample)

    def sample_parts(self, query: bytes, asking: Asking) -> list[bytes]:
        """What the keys of all samples are made of: one where the request has no more."""
        if asking.draw is None:
            return [self.parts(query, asking)]
        return [self._parts(asking, query, n) for n in range(len(asking.draw.keys))]

    def kept(self, query: bytes, asking: Asking) -> bytes:
        """The request as it is kept beside its answer; b"" where it is not kept."""
        return pack(self.parts(query, asking)) if self._keeps(query, asking) else b""

    def _keeps(self, query: bytes, asking: Asking) -> bool:
        return self._keep_requests and not may_hold_credential(query, asking.taken.keyed)

    def wording(self, query: bytes, asking: Asking) -> Wording | None:
        """What may be said in other words, and all that may not; None: only an equal request.

        Where the label is the key there is no question, and several samples are wanted to differ.
        """
        if asking.key is None or asking.controls.override or asking.draw is not None:
            return None
        question = question_in(self._identity(asking))
        if question is None:
            return None
        parts = self._parts_of(asking, question.rest, query)
        partition = self._keyer.partition_of(parts)
        return Wording(question.text, partition, question.tools, asking.member)

    def _parts(self, asking: Asking, query: bytes, sample: int = 0) -> bytes:
        return self._parts_of(asking, self._identity(asking), query, sample)

    def _identity(self, asking: Asking) -> dict[str, Any]:
        return self._dialect.identity(
            asking.body, context_aware=asking.controls.context_aware, ignore=self._ignore
        )

    def _parts_of(
        self, asking: Asking, identity: dict[str, Any], query: bytes, sample: int = 0
    ) -> bytes:
        controls = asking.controls
        if not asking.pool.declared.engine_secret:  # there is nothing there that it could mean
            controls = msgspec.structs.replace(controls, reuse="")
        where = (self._dialect.name, asking.pool.name, asking.tenant, controls.namespace)
        wanted, keyed = wanted_parts(controls, self._ignoring), asking.taken.keyed
        return request_parts(where, wanted, identity, keyed, query, sample)

    def items(
        self, query: bytes, asking: Asking, members: Sequence[dict[str, Any]]
    ) -> list[tuple[Key, Callable[[], bytes]]]:
        """Of a request that is many: the key of each, and what makes the request to keep.

        `members`: what each has besides what all have in common.
        """
        keep = _kept_of_item if self._keeps(query, asking) else _kept_not
        made = self.item_parts(query, asking, members)
        return [(self._keyer.key_of(parts), partial(keep, parts)) for parts in made]

    def item_parts(
        self, query: bytes, asking: Asking, members: Sequence[dict[str, Any]]
    ) -> list[bytes]:
        """What the keys of `items` are made of."""
        common = self._identity(asking)
        return [self._parts_of(asking, common | own, query) for own in members]

    def _check_semantic(self, controls: Controls) -> None:
        """A control that would change nothing is refused: nobody should believe it works."""
        if controls.semantic is not None and controls.semantic is not False and not self._compares:
            accepts = "false: [semantic] enabled is off here, so no question is compared"
            said = f"kv_cache.semantic: got {controls.semantic!r}; it accepts {accepts}"
            raise HttpError(400, said, code="not_enabled", param="kv_cache.semantic")

    def _bypass(self, parsed: Parsed, asked: Asked, controls: Controls) -> Reason | None:
        if not controls.enabled:
            return Reason.DISABLED
        if parsed.unkeyable:
            return Reason.UNKEYABLE
        # What a schema says lies at the engine, and may be another one by now.
        if (
            asked.stateful
            or controls.schema
            or (asked.remote_media and not self._cache_remote_media)
        ):
            return Reason.STATEFUL
        return None

    def _cap_life(self, controls: Controls) -> Controls:
        """A URL names a picture that may change: no longer than the class `dynamic`."""
        longest = self._rules.ttl_class("dynamic").seconds
        ttl = controls.ttl
        if ttl is None:
            name = controls.ttl_class
            ttl = self._rules.ttl_class(name).seconds if name else self._rules.ttl
        if ttl <= longest:
            return controls
        return msgspec.structs.replace(controls, ttl=longest)


def _kept_not(parts: bytes) -> bytes:
    return b""


def _kept_of_item(parts: bytes) -> bytes:
    """What all inputs have in common is kept beside each: so no more than a vector takes itself."""
    packed = pack(parts)
    return packed if len(packed) <= MOST_BESIDE_ITEM else b""


def version_free(path: str) -> str:
    """`/v1/models` and `/models` are one path: `models`."""
    return path.removeprefix("/v1").lstrip("/") if path.startswith("/v1/") else path.lstrip("/")


def _too_long(model: str) -> HttpError:
    accepts = f"a string of at most {MAX_MODEL} characters"
    return HttpError(400, f"model: got {model!r:.80}; it accepts {accepts}", param="model")


def _check_reuse(controls: Controls, pool: Pool) -> None:
    """As `_check_semantic`: only our own engine has attention state that we could speak of."""
    if pool.declared.engine_secret or (controls.reuse in ("", "exact") and not controls.schema):
        return
    name, got, takes = ("schema", controls.schema, "nothing")
    if not got:
        name, got, takes = ("reuse", controls.reuse, "'exact'")
    accepts = f"{takes}: [upstreams.{pool.name}] is no `thinkonce serve-model`"
    said = f"kv_cache.{name}: got {got!r:.80}; it accepts {accepts}"
    raise HttpError(400, said, code="not_enabled", param=f"kv_cache.{name}")


def _could_name_another() -> HttpError:
    return HttpError(
        403,
        "body: two members of one name, or another oddity: an upstream could read another model "
        "than this client may use",
        code="model_not_allowed",
        param="body",
    )


def _unknown_model(model: str, patterns: Sequence[str]) -> HttpError:
    known = f"; the configured patterns are {', '.join(patterns)}" if patterns else ""
    return HttpError(
        404,
        f"model: no upstream serves {model!r:.80}{known}",
        code="model_not_found",
        param="model",
    )
