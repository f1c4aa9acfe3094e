"""Where the question of an entry that was carried here belongs: a partition is never believed.

A partition is a digest of all of a request but its question, under the installation's secret and
with the tenant in it. Under another secret or for another tenant the old one means nothing, so it
is made again of the request; and where it could be right, of the request as well: a line that names
another would answer questions that it has nothing to do with.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from thinkonce.errors import CorruptEntry
from thinkonce.insight.carried import Carried
from thinkonce.likeness import Hint
from thinkonce.protocols.question import Question, question_in
from thinkonce.request.kept import KeptRequest
from thinkonce.request.key import Keyer

__all__ = ("hint_for",)


def hint_for(item: Carried, keyer: Keyer, tenant: str | None) -> Hint | None:
    """The hint of `item` for `tenant`, None: whoever had it; None where it has none.

    Raises CorruptEntry for one that is not the question of its request. A member of the old
    tenant's group is none of another's.
    """
    if item.hint is UNSET:
        return None
    if item.request is None:  # a call of a function: under the same secret only
        return item.hint
    asked = _question_of(item.request)
    if asked is None or asked.text != item.hint.text:
        raise CorruptEntry("line", "checking it: its hint is not the question of its request")
    partition = _partition_of(item.request, asked, keyer, tenant)
    member = item.hint.member if tenant is None else b""
    return msgspec.structs.replace(item.hint, partition=partition, member=member)


def _question_of(request: KeptRequest) -> Question | None:
    """As `engine.asking` has it: a label that is the key has no question, nor has a sample."""
    return None if request.override or request.sample else question_in(request.identity)


def _partition_of(request: KeptRequest, asked: Question, keyer: Keyer, tenant: str | None) -> bytes:
    tenant = request.tenant if tenant is None else tenant
    rest = msgspec.structs.replace(request, tenant=tenant, identity=asked.rest)
    try:
        return keyer.partition_of(rest.parts())
    except (ValueError, OverflowError) as error:  # a number or a text that no request holds
        raise CorruptEntry("line", f"making its partition: {error}") from error
