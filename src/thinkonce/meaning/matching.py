"""Finds stored answers to questions in other words: the parts of `meaning/`, put together.

wording ──► partition's questions ──► lexical: the same plain words, no guard objects
                                  └─► vector ──► nearest ──► verdict ──► budget
both end in the key of an entry; whether it may still answer is the flow's business
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import msgspec

from thinkonce.entry import Entry, Meta
from thinkonce.host.fork import on_fork
from thinkonce.likeness import Hint, Matched, Wording
from thinkonce.meaning.audit.account import Account
from thinkonce.meaning.audit.agreement import Vouching
from thinkonce.meaning.audit.audits import Audits
from thinkonce.meaning.audit.refuted import By, pair_of
from thinkonce.meaning.compared import Promise, Promises
from thinkonce.meaning.comparison import Comparison
from thinkonce.meaning.counts import Counts
from thinkonce.meaning.diversity import Diversity
from thinkonce.meaning.embedders.embeddings import Embeddings, Vector
from thinkonce.meaning.finding import Finding, Place, Unfound
from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.index.packed import packed_bytes
from thinkonce.meaning.index.space import Space
from thinkonce.meaning.rulebook import Rulebook
from thinkonce.meaning.stored import Stored
from thinkonce.meaning.text.eligible import ineligible
from thinkonce.meaning.text.lexical import fingerprint, plain_form
from thinkonce.meaning.told import told_of
from thinkonce.meaning.unanswered import Unanswered
from thinkonce.meaning.verdict.origin import Origin
from thinkonce.meaning.verdict.ruling import (
    Candidate,
    Judged,
    Permits,
    Question,
    Refusal,
    Ruling,
    rule,
)
from thinkonce.meaning.verifiers.verification import Verification
from thinkonce.outcome import Match
from thinkonce.tiers.tier import Key

__all__ = ("Meaning",)

log = logging.getLogger("thinkonce.semantic")

THREADS = 4  # requests that are compared at a time; more wait
SAME = 1.0  # similarity of two questions in the same plain words
SAME_WORDS_BAND = 0  # that of `grounds.SAME_WORDS`
OTHER = "other"  # stands for namespaces that clients made up


class Reported(NamedTuple):
    """What came of a report: whether anything `learned` from it, and whether the entry `stays`,
    since it is wrong for another question than its own."""

    learned: bool
    stays: bool


class Meaning:
    """Of one shelf. Thread-safe. `words` gives those of an answer."""

    def __init__(
        self,
        rulebook: Rulebook,
        stored: Stored,
        embeddings: Embeddings,
        verification: Verification | None,
        audits: Audits,
        words: Callable[[Entry], str | None],
    ) -> None:
        self.rulebook, self.stored, self.spaces = rulebook, stored, stored.spaces
        self.embeddings, self.verification, self.audits = embeddings, verification, audits
        self.counts, self.diversity, self.unanswered = Counts(), Diversity(), Unanswered()
        self._words = words
        self.threads = _threads()
        on_fork(self._in_child)

    # -- what requests ask -------------------------------------------------------------------

    def likeness(
        self, key: Key, wording: Wording, meta: Meta, wanted: bool | float | None
    ) -> Comparison | None:
        """None where this request is not compared. `wanted`: what it says of it itself."""
        place = self.rulebook.place(wording, meta, wanted)
        return None if place is None else Comparison(self, key, wording, place)

    def examine(self, wording: Wording, meta: Meta, wanted: bool | float | None) -> Finding:
        """What would be found, and why. Counts nothing and draws no audit."""
        place = self.rulebook.place(wording, meta, wanted)
        if place is None:
            return Finding(Unfound.NOT_COMPARED)
        if (why := ineligible(wording.text)) is not None:
            return Finding(why.value)
        return self.peek(wording, place)

    def peek(self, wording: Wording, place: Place) -> Finding:
        """As `search`, but counts nothing and draws no audit."""
        return self._search(wording, place, audited=False)

    def search(self, wording: Wording, place: Place) -> Finding:
        """Blocks for an embedder, an index and a verifier."""
        finding = self._search(wording, place, audited=True)
        self.counts.found(finding)
        self._note(finding, wording, place)
        return finding

    def hint(self, wording: Wording, whose: str) -> Hint:
        """What the next question is compared with; without a vector where there is none yet."""
        vector, mark = self.embeddings.known(wording.text, whose), fingerprint(wording.text)
        named = Hint(wording.partition, wording.text, fingerprint=mark, member=wording.member)
        if vector is None:
            return named
        name, packed = self.embeddings.embedder.name, packed_bytes(vector)
        return msgspec.structs.replace(named, embedder=name, vector=packed)

    def answered(self, finding: Finding, entry: Entry, place: Place) -> None:
        """The model has answered what was looked for. Judged later; returns at once."""
        account, judged, words = finding.account, finding.judged, finding.words
        if account is None or judged is None or words is None:
            return
        fresh = self._words(entry)
        if fresh is not None:
            held_back = judged.refusal is Refusal.AGREEMENT and place.member
            vouching = (
                Vouching(place.tenant, place.member, judged.entry, judged.origin)
                if held_back
                else None
            )
            pair = finding.pair
            self.audits.compare(account, finding.draw, judged, words, fresh, vouching, pair=pair)

    def wrong(self, entry: Entry, question: str | None = None) -> Reported:
        """Somebody was given a wrong answer from `entry`, to `question`; None: it is not known to
        which, so no question is answered with it again to which this process gave it lately."""
        meta, hint, pairs = entry.meta, entry.hint, list[bytes]()
        stays = question is not None and hint is not None and question != hint.text
        if question is None:
            pairs = self.audits.refuted.lately(entry.digest)
        elif hint is not None and stays:
            pairs = [pair_of(hint.partition, hint.text, question)]
        for pair in pairs:
            self.audits.refuted.add(meta.tenant, meta.namespace, pair, By.SAID)
        taught = self.audits.wrong(meta.namespace, entry.digest, tenant=meta.tenant)
        return Reported(taught or bool(pairs), stays)

    def promises(self) -> Promises:
        """By namespace and account; namespaces that the settings do not name are `other`."""
        found: Promises = {}
        for each in self.audits.numbers().accounts:
            name = each.namespace if self.rulebook.knows(each.namespace) else OTHER
            shown = each.shown
            found[name, each.name] = Promise(shown.bound, shown.audits, shown.wrong)
        return found

    def told(self) -> dict[str, Any]:
        """All numbers, for people and programs."""
        return told_of(self)

    def close(self) -> None:
        """Idempotent."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.audits.close()
        self.spaces.close()
        if self.verification is not None:
            self.verification.close()
        self.embeddings.close()

    # -- looking -----------------------------------------------------------------------------

    def _search(self, wording: Wording, place: Place, *, audited: bool) -> Finding:
        space = self.spaces.space(wording.partition)
        # If nothing else, it is stored with the model's answer.
        self.embeddings.begin(wording.text, place.tenant)
        asked = self.stored.read(wording.text, place.tenant)
        account = self.rulebook.account(asked, place)
        if account.is_off:
            return Finding(Unfound.OFF, account=account)
        found = self._by_words(asked, space, account, place)
        if found is None or found.why == Refusal.AGREEMENT:
            by_meaning = self._by_meaning(asked, space, account, place, audited=audited)
            # What is held back in the same words is as good to be vouched for as any.
            if found is None or by_meaning.matched is not None:
                found = by_meaning
        if place.member and place.agreement > 1:
            found = replace(found, vouch=self._vouch(place))
        found = self._unless_refuted(found, wording, place)
        return self._audited(found) if audited else found

    def _unless_refuted(self, found: Finding, wording: Wording, place: Place) -> Finding:
        """A hit, or what would be one if audits allowed it, of a pair that is known to be wrong."""
        judged, ruling = found.judged, found.ruling
        if judged is None or ruling is None or judged.refusal not in (None, Refusal.BAND):
            return found
        pair = pair_of(wording.partition, judged.text, wording.text)
        if not self.audits.refuted.knows(place.tenant, place.namespace, pair):
            return replace(found, pair=pair)
        why = Refusal.REFUTED.value
        return replace(found, why=why, matched=None, ruling=ruling.refuted(), judged=None)

    def _permits(self, place: Place) -> Permits:
        def permits(entry: bytes, origin: Origin) -> bool:
            return self.audits.agreement.permits(
                place.tenant, place.member, place.agreement, entry, origin
            )

        return permits

    def _vouch(self, place: Place) -> Callable[[Judged], int]:
        agreement = self.audits.agreement
        return lambda judged: agreement.members(place.tenant, judged.entry, judged.origin)

    def _by_words(
        self, asked: Question, space: Space, account: Account, place: Place
    ) -> Finding | None:
        """An entry in the same plain words to which no guard objects."""
        held_back: Finding | None = None
        permits = self._permits(place)
        for candidate in self.stored.in_the_same_words(space, asked.text):
            if not self._says_the_same(asked, candidate.question):
                continue
            found = self._in_the_same_words(candidate, account, permits)
            if found.why != Refusal.AGREEMENT:
                return found
            held_back = held_back or found
        return held_back

    def _says_the_same(self, asked: Question, stored: Question) -> bool:
        same_script = self.rulebook.options.same_script
        return plain_form(stored.text) == plain_form(asked.text) and not examine(
            asked.analysed, stored.analysed, same_script=same_script
        )

    def _in_the_same_words(
        self, candidate: Candidate, account: Account, permits: Permits
    ) -> Finding:
        refusal = Refusal.BAND if account.step < SAME_WORDS_BAND else None
        if refusal is None and not permits(candidate.entry, candidate.origin):
            refusal = Refusal.AGREEMENT
        judged = Judged(
            candidate.entry,
            candidate.question.text,
            SAME,
            band=SAME_WORDS_BAND,
            refusal=refusal,
            origin=candidate.origin,
        )
        matched = None if refusal else self._matched(judged, Match.LEXICAL)
        return Finding(refusal or "", matched, Ruling((judged,), 0), account, judged=judged)

    def _by_meaning(
        self, asked: Question, space: Space, account: Account, place: Place, *, audited: bool
    ) -> Finding:
        if not len(space):
            return Finding(Unfound.EMPTY, account=account)
        if audited and not account.grounds.has_verdict:
            # Whatever is near, nothing serves.
            return Finding(Unfound.NO_VERIFIER, account=account)
        vector = self.embeddings.get(asked.text, whose=place.tenant)
        if vector is None:
            return Finding(Unfound.NO_VECTOR, account=account)
        return self._ruled(asked, vector, space, account, place)

    def _ruled(
        self, asked: Question, vector: Vector, space: Space, account: Account, place: Place
    ) -> Finding:
        candidates = self.stored.nearest(space, vector)
        if not candidates:
            return Finding(Unfound.EMPTY, account=account)
        grounds = msgspec.structs.replace(account.grounds, least_similarity=place.similarity)
        verify = None
        if self.verification is not None:
            verify = partial(self.verification.logit, whose=place.tenant)
        ruling = rule(
            asked,
            candidates,
            grounds,
            step=account.step,
            sure=account.sure,
            verify=verify,
            permits=self._permits(place),
        )
        served = ruling.served
        if served is None:
            crowded = self.stored.crowds(space, vector, place.member)
            found = Finding(_why(ruling), None, ruling, account, judged=ruling.comparable)
            return replace(found, is_crowded=crowded)
        return Finding("", self._matched(served, Match.SEMANTIC), ruling, account, judged=served)

    def _matched(self, judged: Judged, match: Match) -> Matched:
        key, similarity = self.spaces.key_of(judged.entry), min(max(judged.similarity, 0.0), 1.0)
        return Matched(key, match, similarity, judged.text)

    # -- auditing ----------------------------------------------------------------------------

    def _audited(self, found: Finding) -> Finding:
        """With what is needed to compare its answer with the model's, where that is of use."""
        account, judged, ruling = found.account, found.judged, found.ruling
        if account is None or judged is None or ruling is None:
            return found
        # What is held back is no hit: it says nothing of the error among hits.
        held_back = judged.refusal is Refusal.AGREEMENT
        draw = None if held_back else self.audits.draw(account, ruling, found.pair)
        if found.matched is not None and draw is None:
            return found
        entry = self.stored.entry(judged.entry)
        words = None if entry is None else self._words(entry)
        matched = found.matched
        if matched is not None:
            matched = replace(matched, audit=words is not None)
        return replace(found, matched=matched, draw=draw, words=words)

    def _note(self, finding: Finding, wording: Wording, place: Place) -> None:
        """What only shows over many requests."""
        if finding.matched is not None and finding.judged is not None:
            entry = finding.judged.entry
            self.audits.refuted.served(entry, finding.pair)
            crowd = self.diversity.served(place.namespace, entry, wording.text)
            if crowd is not None:
                said = "semantic: in %r one entry (%s) answers %d questions, %.0f %% of the hits"
                share = 100 * crowd.share
                log.warning(said, place.namespace, entry.hex()[:16], crowd.questions, share)
        elif (vector := self.embeddings.known(wording.text, place.tenant)) is not None:
            self.unanswered.note(place.namespace, wording.text, vector, finding.why)

    def _in_child(self) -> None:
        self.threads = _threads()


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="thinkonce-meaning")


def _why(ruling: Ruling) -> str:
    """What kept the likeliest from serving, or where none came so far, the nearest."""
    found = ruling.likeliest or ruling.judged[0]
    assert found.refusal is not None
    return found.refusal.value
