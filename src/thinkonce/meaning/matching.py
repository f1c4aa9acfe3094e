"""Finds stored answers to questions in other words: the parts of `meaning/`, put together.

wording ──► partition's questions ──► lexical: nearly the same words, no guard objects
                                  └─► vector ──► nearest ──► verdict ──► budget
both end in the key of an entry; whether it may still answer is the flow's business
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import msgspec

from thinkonce.entry import Entry, Meta
from thinkonce.errors import TierError
from thinkonce.host.fork import on_fork
from thinkonce.likeness import Hint, Matched, Wording
from thinkonce.meaning.account import Account
from thinkonce.meaning.audits import Audits
from thinkonce.meaning.budget import Mode
from thinkonce.meaning.compared import Promise
from thinkonce.meaning.comparison import Comparison
from thinkonce.meaning.counts import Counts
from thinkonce.meaning.diversity import Diversity
from thinkonce.meaning.eligible import ineligible
from thinkonce.meaning.embeddings import Embeddings, Vector
from thinkonce.meaning.examine import examine
from thinkonce.meaning.finding import Finding, Place
from thinkonce.meaning.flat_index import Near
from thinkonce.meaning.grounds import Grounds, grounds_of, spoken
from thinkonce.meaning.lexical import fingerprint
from thinkonce.meaning.packed import packed_bytes
from thinkonce.meaning.score import arounds
from thinkonce.meaning.space import Space
from thinkonce.meaning.spaces import Spaces
from thinkonce.meaning.told import told_of
from thinkonce.meaning.unanswered import Unanswered
from thinkonce.meaning.verdict import (
    Candidate,
    Judged,
    Question,
    Ruling,
    read_question,
    rule,
)
from thinkonce.meaning.verification import Verification
from thinkonce.outcome import Match
from thinkonce.settings.semantic import Namespace, Semantic
from thinkonce.tiers.tier import Key, Tier

__all__ = ("Meaning",)

log = logging.getLogger("thinkonce.semantic")

NEIGHBOURS = 8  # rows of the index that are looked at
LEXICAL = 3  # entries of nearly the same words that are looked at
THREADS = 4  # requests that are compared at a time; more wait
SAME_WORDS = 1.0  # similarity of two questions in the same plain words


class Meaning:
    """Of one shelf. Thread-safe.

    `tiers` gives those to read candidates from, nearest first; `words` those of an answer.
    """

    def __init__(
        self,
        options: Semantic,
        namespaces: Mapping[str, Namespace],
        *,
        tiers: Callable[[], Sequence[Tier]],
        spaces: Spaces,
        embeddings: Embeddings,
        verification: Verification | None,
        audits: Audits,
        words: Callable[[Entry], str | None],
    ) -> None:
        self.spaces, self.audits, self.counts = spaces, audits, Counts()
        self.diversity, self.unanswered = Diversity(), Unanswered()
        self._tiers, self.embeddings, self._words = tiers, embeddings, words
        self.verification = verification
        self._read = lru_cache(maxsize=4096)(read_question)
        self._grounds = lru_cache(maxsize=256)(self._new_grounds)
        self.threads = _threads()
        self.adopt(options, namespaces)
        on_fork(self._in_child)

    def adopt(self, options: Semantic, namespaces: Mapping[str, Namespace]) -> None:
        """Compare under other settings from now on. Models stay those of the start."""
        self._options, self._namespaces = options, dict(namespaces)
        self._grounds.cache_clear()

    # -- what requests ask -------------------------------------------------------------------

    def likeness(
        self, key: Key, wording: Wording, meta: Meta, wanted: bool | float | None
    ) -> Comparison | None:
        """None where this request is not compared. `wanted`: what it says of it itself."""
        place = self._place(wording, meta, wanted)
        return None if place is None else Comparison(self, key, wording, place)

    def examine(self, wording: Wording, meta: Meta, wanted: bool | float | None) -> Finding:
        """What would be found, and why. Counts nothing and draws no audit."""
        place = self._place(wording, meta, wanted)
        if place is None:
            return Finding("not-compared")
        if (why := ineligible(wording.text)) is not None:
            return Finding(why.value)
        return self._search(wording, place, audited=False)

    def search(self, wording: Wording, place: Place) -> Finding:
        """Blocks for an embedder, an index and a verifier."""
        finding = self._search(wording, place, audited=True)
        self.counts.found(finding)
        self._note(finding, wording, place)
        return finding

    def hint(self, wording: Wording) -> Hint:
        """What the next question is compared with; without a vector where there is none yet."""
        vector = self.embeddings.known(wording.text)
        return Hint(
            wording.partition,
            wording.text,
            self.embeddings.embedder.name,
            b"" if vector is None else packed_bytes(vector),
            fingerprint(wording.text),
        )

    def answered(self, finding: Finding, entry: Entry) -> None:
        """The model has answered what was looked for. Judged later; returns at once."""
        account, judged, stored = finding.account, finding.judged, finding.stored
        if account is None or judged is None or stored is None:
            return
        fresh = self._words(entry)
        if fresh is not None:
            self.audits.compare(account, finding.draw, judged, stored, fresh)

    def wrong(self, namespace: str, digest: bytes) -> bool:
        """Somebody was served a wrong answer from this entry, which is removed.

        False where nothing is known that could learn from it.
        """
        return self.audits.wrong(namespace, digest)

    def promises(self) -> dict[str, Promise]:
        """By namespace, in its worse language; those that the settings do not name are `other`."""
        found: dict[str, Promise] = {}
        for each in self.audits.numbers().accounts:
            known = each.namespace == "" or each.namespace in self._namespaces
            name, shown = each.namespace if known else "other", each.shown
            mine = Promise(shown.bound, shown.audits, shown.wrong)
            held = found.setdefault(name, mine)
            if mine.audits and (mine.bound > held.bound or not held.audits):
                found[name] = mine
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

    # -- under which rules -------------------------------------------------------------------

    def _place(self, wording: Wording, meta: Meta, wanted: bool | float | None) -> Place | None:
        own = self._namespaces.get(meta.namespace) or Namespace()
        forbidden = wanted is False or own.semantic is False
        allowed = own.semantic or self._options.enabled or (wanted is not None)
        if forbidden or not allowed or (wording.tools and not self._options.tools):
            return None
        similarity = self._options.similarity if own.similarity is None else own.similarity
        if wanted is not None and not isinstance(wanted, bool):
            similarity = max(similarity, float(wanted))
        return Place(meta.namespace, meta.model, similarity)

    def _account(self, question: Question, place: Place) -> Account:
        own = self._namespaces.get(place.namespace) or Namespace()
        max_error = self._options.max_error if own.max_error is None else own.max_error
        mode = Mode(own.semantic_mode or self._options.mode)
        language = spoken(question.analysed.language)
        grounds = self._grounds(language, place.model, max_error)
        return self.audits.account(place.namespace, grounds, max_error, mode)

    def _new_grounds(self, language: str, model: str, max_error: float) -> Grounds:
        return grounds_of(
            language,
            self.embeddings.embedder.name,
            None if self.verification is None else self.verification.verifier,
            max_error,
            judge=self.audits.judge.name,
            model=model,
            same_script=self._options.same_script,
        )

    # -- looking -----------------------------------------------------------------------------

    def _search(self, wording: Wording, place: Place, *, audited: bool) -> Finding:
        space = self.spaces.space(wording.partition)
        self.embeddings.begin(wording.text)  # if nothing else, it is stored with the model's answer
        asked = self._read(wording.text)
        account = self._account(asked, place)
        if account.is_off:
            return Finding("off", account=account)
        found = self._by_words(asked, space, account, wording)
        if found is None:
            if not len(space):
                return Finding("empty", account=account)
            if audited and not account.grounds.cuts:
                return Finding("no-verifier", account=account)  # whatever is near, nothing serves
            vector = self.embeddings.get(wording.text)
            if vector is None:
                return Finding("no-vector", account=account)
            found = self._by_meaning(asked, vector, space, account, place, wording)
        return self._audited(found) if audited else found

    def _by_words(
        self, asked: Question, space: Space, account: Account, wording: Wording
    ) -> Finding | None:
        """An entry of nearly the same words to which no guard objects."""
        if account.is_off:
            return None
        mark = fingerprint(wording.text)
        for digest in space.alike(mark)[:LEXICAL] if mark else ():
            stored = self._question_of(digest, wording.partition)
            if stored is None:
                self.spaces.forget(wording.partition, digest, mark)
                continue
            same_script = self._options.same_script
            if examine(asked.analysed, stored.analysed, same_script=same_script):
                continue
            band = 0 if account.grounds.cuts else None
            judged = Judged(digest, stored.text, SAME_WORDS, band=band)
            matched = self._matched(judged, Match.LEXICAL)
            return Finding("", matched, Ruling((judged,), 0), account, judged=judged)
        return None

    def _by_meaning(
        self,
        asked: Question,
        vector: Vector,
        space: Space,
        account: Account,
        place: Place,
        wording: Wording,
    ) -> Finding:
        candidates = self._candidates(space.nearest(vector, NEIGHBOURS), wording.partition)
        if not candidates:
            return Finding("empty", account=account)
        grounds = msgspec.structs.replace(account.grounds, least_similarity=place.similarity)
        verify = None if self.verification is None else self.verification.logit
        ruling = rule(
            asked, candidates, grounds, step=account.step, sure=account.sure, verify=verify
        )
        served = ruling.served
        if served is None:
            return Finding(_why(ruling), None, ruling, account, judged=ruling.comparable)
        return Finding("", self._matched(served, Match.SEMANTIC), ruling, account, judged=served)

    def _candidates(self, near: Sequence[Near], partition: bytes) -> list[Candidate]:
        places = arounds([each.similarity for each in near])
        found = []
        for each, around in zip(near, places, strict=True):
            stored = self._question_of(each.name, partition)
            if stored is None:
                self.spaces.forget(partition, each.name)
            else:
                found.append(Candidate(each.name, stored, around))
        return found

    def _question_of(self, digest: bytes, partition: bytes) -> Question | None:
        """None where the entry is gone, or is another partition's, whatever an index says."""
        entry = self._entry(digest)
        if entry is None or entry.hint is None or entry.hint.partition != partition:
            return None
        return self._read(entry.hint.text)

    def _entry(self, digest: bytes) -> Entry | None:
        key = self.spaces.key_of(digest)
        for tier in self._tiers():
            try:
                entry = tier.peek(key)
            except TierError:
                continue
            if entry is not None:
                return entry
        return None

    def _matched(self, judged: Judged, match: Match) -> Matched:
        key, similarity = self.spaces.key_of(judged.entry), min(max(judged.similarity, 0.0), 1.0)
        return Matched(key, match, similarity, judged.text)

    # -- auditing ----------------------------------------------------------------------------

    def _audited(self, found: Finding) -> Finding:
        """With what is needed to compare its answer with the model's, where that is of use."""
        account, judged, ruling = found.account, found.judged, found.ruling
        if account is None or judged is None or ruling is None or not account.grounds.cuts:
            return found
        draw = self.audits.draw(account, ruling)
        if found.matched is not None and draw is None:
            return found
        entry = self._entry(judged.entry)
        stored = None if entry is None else self._words(entry)
        matched = found.matched
        if matched is not None:
            matched = Matched(
                matched.key, matched.match, matched.similarity, matched.question, stored is not None
            )
        return Finding(found.why, matched, ruling, account, draw, judged, stored)

    def _note(self, finding: Finding, wording: Wording, place: Place) -> None:
        """What only shows over many requests."""
        if finding.matched is not None and finding.judged is not None:
            entry = finding.judged.entry
            crowd = self.diversity.served(place.namespace, entry, wording.text)
            if crowd is not None:
                said = "semantic: in %r one entry (%s) answers %d questions, %.0f %% of the hits"
                share = 100 * crowd.share
                log.warning(said, place.namespace, entry.hex()[:16], crowd.questions, share)
        elif (vector := self.embeddings.known(wording.text)) is not None:
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
