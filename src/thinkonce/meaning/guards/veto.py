"""Why one answer may not serve two questions: the closed list of reasons."""

from __future__ import annotations

from enum import StrEnum

__all__ = ("Veto",)


class Veto(StrEnum):
    """A reason found in the words of two questions. Each is one guard's; several may hold."""

    NUMBER = "number"  # another number, or a number only one side has
    UNIT = "unit"  # the same number of something else
    DATE = "date"  # another day, year, hour or season
    NEGATION = "negation"  # one side denies what the other asks
    ANTONYM = "antonym"  # enable / disable, 买 / 卖
    COMPARATIVE = "comparative"  # above / below, 最多 / 最少
    DIRECTION = "direction"  # from A to B / from B to A, 女人喜欢男人 / 男人喜欢女人
    NAME = "name"  # another product, place, person, code, title, letter
    MENTION = "mention"  # another word that is asked about: the meaning of terse / of tense
    QUESTION = "question"  # why / how to, 谁 / 什么时候
    MODALITY = "modality"  # must / may, did / will
    SCOPE = "scope"  # all / some, first / last
    SIGN = "sign"  # another sign between the words: a ≤ b / a ≥ b, C / C#
    ASKS = "asks"  # one question against two
    LANGUAGE = "language"  # the answer would come in another language
    SCRIPT = "script"  # simplified against traditional Chinese, where that was asked to matter
