"""Chooses how a loaded model reads prompts, and tells what came of it."""

from __future__ import annotations

import logging
import secrets
from collections import abc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError, RequestError
from thinkonce.kv.disk.opening import opened_disk
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.generation.codecs.choice import codec_of
from thinkonce.kv.generation.exact import ExactReader
from thinkonce.kv.generation.generator import Generator, Kept, Read
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.plain import PlainGenerator
from thinkonce.kv.generation.probe import other_bits
from thinkonce.kv.generation.rates import Rate, Rates
from thinkonce.kv.generation.reader import Reader
from thinkonce.kv.generation.reading import ReadingStats
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.slab import in_steps
from thinkonce.kv.generation.support import fingerprint_of, shape_of, unsupported
from thinkonce.kv.modules.reader import ModuleReader
from thinkonce.kv.planning.recording import Recording
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.blocks import unpacked
from thinkonce.kv.prefix.branches import Listed
from thinkonce.kv.prefix.causes import Explained, Missing
from thinkonce.kv.prefix.choice import policy_of
from thinkonce.kv.prefix.eviction import Room
from thinkonce.kv.prefix.ghosts import Ghosts
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.node import Node
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.prefix.public import PublicPrefixes
from thinkonce.kv.prefix.purges import PurgeRule, Purges
from thinkonce.kv.prefix.tier import Purged
from thinkonce.kv.reuse.measured import MeasuredWays, measured_ways, stock_of
from thinkonce.kv.reuse.reader import ChunkReader
from thinkonce.kv.reuse.remembered import Remembered
from thinkonce.kv.sentence.opened import decoder_of
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv, KvMethod
from thinkonce.tiers.keyring import NO_KEYS, Keyring

__all__ = ("KvEngine", "open_engine", "sequences_of")

_logger = logging.getLogger("thinkonce.kv")


@dataclass(frozen=True, slots=True)
class KvEngine:
    """What makes a model's tokens. `reusing` is the generator that keeps what it read; None where
    nothing is kept, for the reason `why`.

    `ways`: how chunks are reused beyond the prefix, as measured; None where they cannot be.
    `owners_key` hashes credentials of clients: the same after a restart where there is a folder,
    so that they find their own again. `method`: how marked parts of messages are reused where
    nobody says. The generator belongs to one thread; `stats` may be called from any.
    """

    generator: Generator
    reusing: ReusingGenerator | None = None
    index: PrefixIndex[torch.Tensor] | None = None
    disk: DiskTier | None = None
    owners_key: bytes = b""
    policy: str = ""
    method: KvMethod = "exact"
    why: str = ""
    purges: Purges = field(default_factory=Purges)
    clock: Clock = SYSTEM
    recording: Recording | None = None
    ways: MeasuredWays | None = None
    remembered: Remembered | None = None

    @property
    def keeps(self) -> bool:
        """Whether attention state outlives its request."""
        return self.reusing is not None

    @property
    def chunk_tokens(self) -> int:
        """Of a block; 0 where nothing is kept."""
        return 0 if self.reusing is None else self.reusing.chunk_tokens

    def purge(self, rule: PurgeRule) -> tuple[int, Purged | None]:
        """From now on nothing is found that `rule` holds for; how many blocks memory lost, and
        what the disk did, where there is one.

        Any thread may call it; it waits until bytes on disk are erased, some seconds at most.
        Raises OSError where it holds for this process alone, because the folder could not be
        written.
        """
        try:
            self.purges.add(rule)
        finally:
            gone = [] if self.index is None else self.index.purge(rule.holds)
            if self.ways is not None:
                self.ways.audits.purge(rule.holds)
            on_disk = None if self.disk is None else self.disk.purge(rule)
        return len(gone), on_disk

    def known(self, askings: Iterable[Asking]) -> Callable[[], int]:
        """What tells how many tokens of the prompts are in memory now; from any thread."""
        if self.reusing is None:
            return lambda: 0
        each = [self.reusing.known(asking) for asking in askings if asking.terms.reads]
        return lambda: sum(known() for known in each)

    def publish(self, prefixes: PublicPrefixes) -> None:
        """Have all tenants share those. Before the first prompt."""
        if self.reusing is not None:
            self.reusing.keeping.public = prefixes

    def keepable(self, asking: Asking) -> int:
        """Tokens of a prompt that are kept where it is read ahead; from any thread."""
        return 0 if self.reusing is None else self.reusing.keepable(asking)

    def preload(
        self, asking: Asking, cancelled: Callable[[], bool]
    ) -> abc.Generator[Read | Kept, None, None]:
        """Read a prompt and keep it, without an answer; see `ReusingGenerator.preload`. Raises
        RequestError where nothing would be kept.
        """
        if self.reusing is None:
            raise RequestError("kv_cache.preload", True, f"nothing here: {self.why}")
        return self.reusing.preload(asking, cancelled)

    def explain(self, asking: Asking, *, is_admin: bool = False) -> Explained:
        """What of the prompt would be loaded now, and why not more. Any thread may call it."""
        if self.reusing is None:
            return Explained(len(asking.prompt), 0, 0, Missing("bypass"))
        return self.reusing.explain(asking, is_admin=is_admin)

    def listed(self) -> dict[bytes, Listed]:
        """All blocks that are kept, by the names they have on disk. Any thread may call it."""
        found = {} if self.disk is None else {each.id: each for each in self.disk.listed()}
        for name, node in self._nodes().items():
            block = _listed(node, name, self._name(node.block.parent), self.clock.monotonic())
            there = found.get(name)
            found[name] = block if there is None else block.with_disk(there)
        return found

    def tokens_of(self, names: Sequence[bytes]) -> list[int]:
        """The tokens of blocks that follow each other, up to one that cannot be read."""
        nodes, tokens = self._nodes(), list[int]()
        for name in names:
            node = nodes.get(name)
            block = node.block if node is not None else self.disk and self.disk.block(name)
            if not block:
                break
            tokens += unpacked(block.tokens)
        return tokens

    def _nodes(self) -> dict[bytes, Node[torch.Tensor]]:
        nodes = [] if self.index is None else self.index.nodes()
        return {self._name(node.block.id): node for node in nodes}

    def _name(self, id: bytes) -> bytes:
        return id if self.disk is None else self.disk.name(id)

    def most_tokens(self, prompt: Prompt) -> int | None:
        """Of this prompt and its answer together, as many as memory can ever hold; None: no bound
        known.
        """
        if self.reusing is None or (most := self.reusing.slabs.most_tokens) is None:
            return None
        return most - in_steps(self.reusing.room(prompt))

    def check(self, prompt: Prompt, answer: int) -> None:
        """Raises TooLong where it can never fit with an answer of so many tokens."""
        if self.reusing is not None:
            self.reusing.slabs.check(len(prompt) + answer, self.reusing.room(prompt))

    def resize(self, memory: int) -> None:
        """Change `[kv] memory`, at once but for what sequences under way hold. Thread-safe.

        Raises RequestError for less than one block, and where nothing is kept.
        """
        if self.reusing is None:
            raise RequestError("memory", memory, f"nothing: {self.why}")
        slabs = self.reusing.slabs
        least = slabs.shape.bytes_a_token * self.reusing.chunk_tokens
        if memory < least:
            raise RequestError("memory", memory, f"{least} bytes or more, one block")
        slabs.resize(memory)

    def resize_disk(self, disk: int) -> None:
        """Change `[kv] disk`. Thread-safe. Raises RequestError as `resize`, and for no folder."""
        if self.disk is None or self.reusing is None:
            raise RequestError("disk", disk, f"nothing: {self.why or 'there is no [kv] store'}")
        least = self.reusing.slabs.shape.bytes_a_token * self.reusing.chunk_tokens
        if disk < least:
            raise RequestError("disk", disk, f"{least} bytes or more, one block")
        self.disk.resize(disk)

    def close(self) -> None:
        """Write what is still to be written. Idempotent."""
        if self.recording is not None:
            self.recording.close()
        if self.remembered is not None:
            self.remembered.save()
        if self.disk is not None:
            self.disk.close()

    def stats(self) -> dict[str, Any]:
        """What `GET /kv/stats` answers: counts since the start, and what is in memory now.

        Of nobody in particular: no text, no tenant.
        """
        if self.index is None or self.reusing is None:
            return {"reuse": False, "why": self.why}
        held, read, slabs = self.index.stats(), self.reusing.stats, self.reusing.slabs
        return {
            "reuse": True,
            "exact": self.reusing.is_exact,
            "codec": self.reusing.keeping.codec.name,
            "fingerprint": self.reusing.fingerprint.hex(),
            "chunk_tokens": self.reusing.chunk_tokens,
            "policy": self.policy,
            "bytes_a_token": slabs.shape.bytes_a_token,
            "prompts": read.prompts,
            "prompt_tokens": read.prompt_tokens,
            "cached_tokens": read.cached_tokens,
            "by_method": read.reused.by_method,
            "recomputed_tokens": read.reused.recomputed,
            "memory": {
                "blocks": held.blocks,
                "tokens": held.tokens,
                "bytes": held.bytes,
                "max_bytes": slabs.max_bytes,
            },
            "blocks_added": held.added,
            "blocks_evicted": held.evicted,
            "blocks_refused": held.refused + read.not_kept,
            "blocks_expired": held.expired,
            "blocks_purged": held.purged,
            "collisions": held.collisions,
            "disk": self._on_disk(read),
            "prefill": _measured(self.reusing.rates.prefill),
            "load": _measured(self.reusing.rates.load),
            "slab_bytes": slabs.bytes,
            "sequences": slabs.under_way,
            "fidelity": None if self.ways is None else self.ways.stats(),
        }

    def _on_disk(self, read: ReadingStats) -> dict[str, Any] | None:
        if self.disk is None or self.reusing is None:
            return None
        return {
            **asdict(self.disk.stats()),
            "tokens_loaded": read.disk_tokens,
            "slower_than_recompute": read.slower,
        }


def _listed(node: Node[torch.Tensor], name: bytes, parent: bytes, now: float) -> Listed:
    return Listed(
        name,
        parent,
        node.block.length,
        memory=node.size,
        added=now - node.added,
        used=now - node.used,
        hits=node.hits,
        left=node.stay.expires - now,
        weight=node.stay.weight,
        owner=node.owner,
    )


def _measured(rate: Rate) -> dict[str, float]:
    return {
        "count": rate.count,
        "seconds": round(rate.seconds, 6),
        "us_a_token": round(rate.a_token * 1e6, 1),
    }


def open_engine(model: Model, kv: Kv, clock: Clock = SYSTEM, keys: Keyring = NO_KEYS) -> KvEngine:
    """Reuse attention state where the settings ask for it and the model's family allows it.

    A model that does not is served all the same, each prompt read in full, with one line in the
    log that says why. `keys`: what the folder is sealed with. Raises ConfigError for a budget that
    holds not even one block, for a folder that cannot be written, and for one of another key.
    """
    why = _why_not(model, kv.chunk) if kv.reuse else "`kv.reuse` is false"
    if why is not None:
        if kv.reuse:
            _logger.warning("attention state of %s is not reused: %s", model.name, why)
        return KvEngine(PlainGenerator(model.network, model.end_ids), why=why)
    _check_budget(model, kv)
    decoder = decoder_of(model, kv.sentence_tokens)
    codec = codec_of(kv.codec, shape_of(model.network))
    fitting = kv.memory // codec.size(kv.chunk)
    rates = Rates()
    policy = policy_of(kv.policy, Room(fitting, partial(_within, kv.slo, rates.prefill)))
    index: PrefixIndex[torch.Tensor] = PrefixIndex(kv.memory, policy, clock, Ghosts(clock=clock))
    fingerprint = fingerprint_of(model.network, model.tokenizer, kv.chunk, kv.codec)
    below = opened_disk(kv, keys, fingerprint, clock, model.name)
    below.purges.told = lambda rule: index.purge(rule.holds)
    keeping = Keeping(
        model.network,
        chunk_tokens=kv.chunk,
        fingerprint=fingerprint.digest(),
        kept=index,
        below=below.tier,
        memory=kv.memory,
        purges=below.purges,
        clock=clock,
        rates=rates,
        codec=codec,
    )
    exact = ExactReader(keeping, below.others)
    stock = stock_of(model.tokenizer, model.context_tokens)
    ways = measured_ways(keeping, exact, stock, kv.link_tokens, below.owners_key)
    remembered = None
    if ways is not None and below.fidelity is not None:
        remembered = Remembered(below.fidelity, ways, clock)
        ways.learned = remembered.audited
    chunks = ChunkReader(keeping, exact, ways)
    readers: list[Reader] = [ModuleReader(keeping, ways), chunks, exact]
    generator = ReusingGenerator(keeping, model.end_ids, readers, decoder)
    return KvEngine(
        generator,
        generator,
        index,
        below.tier,
        below.owners_key,
        kv.policy,
        kv.method,
        purges=below.purges,
        clock=clock,
        recording=_recording(kv, below.owners_key, keeping, clock),
        ways=ways,
        remembered=remembered,
    )


def _recording(kv: Kv, key: bytes, keeping: Keeping, clock: Clock) -> Recording | None:
    """Names are the same after a restart where there is a folder, which has a key."""
    if not kv.trace:
        return None
    recording = Recording(Path(kv.trace), kv.chunk, key or secrets.token_bytes(32), clock=clock)
    keeping.recorded = recording.add
    return recording


def _within(slo: float, prefill: Rate) -> float:
    """Tokens that the model reads in so many seconds, as far as it was measured."""
    return slo / prefill.a_token if prefill.a_token else 0.0


def _why_not(model: Model, chunk_tokens: int) -> str | None:
    """Why its state is not reused: it is not known to give equal bits, or was seen not to."""
    network = model.network
    if (why := unsupported(network)) is not None or network.device.type == "cpu":
        return why
    if (found := other_bits(network, model.end_ids, chunk_tokens)) is None:
        return None
    return f"on {network.device} reading from memory gave other bits than reading anew: {found}"


def _check_budget(model: Model, kv: Kv) -> None:
    block = shape_of(model.network).bytes_a_token * kv.chunk
    if kv.memory < block:
        accepts = f"{block} bytes or more, one block of {kv.chunk} tokens of {model.name}"
        raise ConfigError("[kv] memory", kv.memory, f"{accepts}; or [kv] reuse = false")


def sequences_of(engine: KvEngine, kv: Kv) -> int:
    """How many answers may be under way: one alone where nobody knows what its state takes."""
    return kv.sequences if engine.keeps else 1
