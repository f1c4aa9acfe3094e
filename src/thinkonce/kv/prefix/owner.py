"""Whose a prompt is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

__all__ = ("ANY_DOCUMENT", "MOST_DOCUMENTS", "NOBODY", "Owner")

MOST_DOCUMENTS = 64
"""That are told apart; what says more of them is purged with any document."""
ANY_DOCUMENT = ("*",)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a prompt is: attention state is never shared between two owners.

    `tenant` stands for a credential and comes from whoever checked it. `namespace`, `cache_key`
    and `tags` (sorted, each once) are the tenant's own words; they keep apart and never bring
    together. `era` tells what was purged before: state from an earlier one is never found.
    `documents` (sorted, each once) are in what the prompt says, as far as it was marked: by them
    it can be purged, but two owners that differ in nothing else are one.
    """

    tenant: str = ""
    namespace: str = ""
    cache_key: str = ""
    tags: tuple[str, ...] = ()
    era: str = ""
    documents: tuple[str, ...] = field(default=(), compare=False)

    def covers(self, other: Owner) -> bool:
        """Whether the other is this one, and bears all of its marks."""
        return self == other and set(self.documents) <= set(other.documents)

    def with_documents(self, more: tuple[str, ...]) -> Owner:
        """The same, marked with these besides."""
        if set(more) <= set(self.documents):
            return self
        names = tuple(sorted({*self.documents, *more}))
        # Once they are not told apart, no further name brings the others back.
        is_any = ANY_DOCUMENT in (self.documents, more) or len(names) > MOST_DOCUMENTS
        return replace(self, documents=ANY_DOCUMENT if is_any else names)


NOBODY = Owner()
"""Of callers without a credential."""
