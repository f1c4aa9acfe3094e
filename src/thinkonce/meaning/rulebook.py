"""Under which rules a question is compared: its namespace's, its language's, its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache

from thinkonce.entry import Meta
from thinkonce.likeness import Wording
from thinkonce.meaning.audit.account import Account
from thinkonce.meaning.audit.audits import Audits
from thinkonce.meaning.audit.budget import Mode
from thinkonce.meaning.embedders.embedder import Embedder
from thinkonce.meaning.finding import Place
from thinkonce.meaning.verdict.grounds import Grounds, grounds_of, promised_from, spoken
from thinkonce.meaning.verdict.ruling import Question
from thinkonce.meaning.verdict.verifier import Verifier
from thinkonce.settings.semantic import Namespace, Semantic

__all__ = ("Rulebook",)

log = logging.getLogger("thinkonce.semantic")

_AS_EVERYWHERE = Namespace()
_LANGUAGES = {"zh": "Chinese", "en": "English", "other": "other languages"}


class Rulebook:
    """Thread-safe: settings change as a whole."""

    def __init__(
        self,
        options: Semantic,
        namespaces: Mapping[str, Namespace],
        embedder: Embedder,
        verifier: Verifier | None,
        audits: Audits,
    ) -> None:
        self.options, self._namespaces = options, dict(namespaces)
        self._embedder, self._verifier, self._audits = embedder, verifier, audits
        self._told: set[tuple[str, float]] = set()
        self._grounds = lru_cache(maxsize=256)(self._new_grounds)

    def adopt(self, options: Semantic, namespaces: Mapping[str, Namespace]) -> None:
        """From now on. Models stay those of the start."""
        self.options, self._namespaces = options, dict(namespaces)
        self._grounds.cache_clear()

    def knows(self, namespace: str) -> bool:
        """Whether the settings name it; clients may name others."""
        return namespace == "" or namespace in self._namespaces

    def place(self, wording: Wording, meta: Meta, wanted: bool | float | None) -> Place | None:
        """None where nothing is compared. `wanted` is what the request says of it itself."""
        options, own = self.options, self._namespaces.get(meta.namespace, _AS_EVERYWHERE)
        is_forbidden = wanted is False or own.semantic is False
        is_allowed = own.semantic or options.enabled or wanted is not None
        if is_forbidden or not is_allowed or (wording.tools and not options.tools):
            return None
        similarity = options.similarity if own.similarity is None else own.similarity
        if wanted is not None and not isinstance(wanted, bool):
            similarity = max(similarity, float(wanted))
        agreement = options.agreement if own.agreement is None else own.agreement
        whose = (meta.tenant, wording.member, agreement)
        return Place(meta.namespace, meta.model, similarity, *whose)

    def account(self, asked: Question, place: Place) -> Account:
        """What the tenant's audits have said there, and what its hits of that kind go by."""
        own = self._namespaces.get(place.namespace, _AS_EVERYWHERE)
        max_error = self.options.max_error if own.max_error is None else own.max_error
        mode = Mode(own.semantic_mode or self.options.mode)
        grounds = self._grounds(spoken(asked.analysed.language), place.model, max_error)
        return self._audits.account(place.namespace, grounds, max_error, mode, tenant=place.tenant)

    def _new_grounds(self, language: str, model: str, max_error: float) -> Grounds:
        found = grounds_of(
            language,
            self._embedder.name,
            self._verifier,
            max_error,
            family=self._embedder.family,
            judge=self._audits.judge.name,
            model=model,
            same_script=self.options.same_script,
        )
        if self._verifier is not None and not found.first:
            self._say_what_is_promised(found, max_error)
        return found

    def _say_what_is_promised(self, found: Grounds, max_error: float) -> None:
        """It looks broken otherwise: switched on, and no question in other words is answered."""
        told = (found.language, max_error)
        if told in self._told:
            return
        self._told.add(told)
        least = promised_from(found)
        sooner = f"; from max_error {least:g} on it serves at once" if least else ""
        said = "semantic: the verdict serves nothing in %s at max_error %g, but what audits earn%s"
        log.info(said, _LANGUAGES[found.language], max_error, sooner)
