from __future__ import annotations

from random import Random

import msgspec
import pytest

from thinkonce.errors import ConfigError
from thinkonce.meaning.audit.budget import ALARMS, Budget, Draw, Event, Mode, Standing
from thinkonce.meaning.audit.misjudgement import Misjudgement, measured
from thinkonce.meaning.verdict.grounds import band_of


def budget(mode: Mode = Mode.CALIBRATED, max_error: float = 0.05, steps: int = 3) -> Budget:
    return Budget(max_error, steps, "encoder 1, verifier 1", mode)


def drawn(state: Budget, band: int = 0) -> Draw:
    draw = state.draw(band, dice=0.0)
    assert draw is not None
    return draw


def audits(state: Budget, band: int, wrong: list[bool]) -> list[Event]:
    events = (state.audited(drawn(state, band), is_wrong) for is_wrong in wrong)
    return [event for event in events if event is not None]


def until_alarm(state: Budget) -> None:
    events = (state.audited(drawn(state), is_wrong=True) for _ in range(20))
    assert Event.ALARM in events  # reads no further than the first


def test_a_score_falls_into_the_strictest_band_it_reaches() -> None:
    cuts = (3.0, 2.0, 1.0)
    assert [band_of(score, cuts) for score in (9.0, 3.0, 2.9, 1.0, 0.9)] == [0, 0, 1, 2, None]


def test_certified_mode_serves_nothing_before_it_is_earned() -> None:
    state = budget(Mode.CERTIFIED)
    assert state.standing is Standing.SHADOW
    assert not state.serves(0)
    assert state.rates() == (1.0, 1.0, 1.0), "in shadow the model is asked anyway"
    assert audits(state, 0, [False] * 110) == []
    assert audits(state, 0, [False]) == [Event.CERTIFIED]
    assert state.standing is Standing.SERVING
    assert state.serves(0)
    assert not state.serves(1), "what was audited says nothing of looser bands"


def test_with_one_cut_certifying_takes_no_more_audits_than_the_bet_itself() -> None:
    state = budget(Mode.CERTIFIED, steps=1)
    assert audits(state, 0, [False] * 84) == []
    assert audits(state, 0, [False]) == [Event.CERTIFIED], "85 audits without an error at 5 %"


def test_calibrated_mode_serves_the_strictest_band_at_once() -> None:
    state = budget()
    assert state.standing is Standing.SERVING
    assert (state.serves(0), state.serves(1)) == (True, False)
    assert not state.shown().certified
    audits(state, 0, [False] * 120)
    assert state.shown().certified


def test_looser_bands_are_won_one_after_the_other() -> None:
    state = budget(Mode.CERTIFIED)
    for band, step in ((0, 0), (1, 1), (2, 2)):
        audits(state, band, [False] * 120)
        assert state.step == step, f"after band {band}"
    state = budget(Mode.CERTIFIED)
    audits(state, 0, [False] * 30)
    audits(state, 2, [False] * 90)
    assert state.step == 2, "a strict band with little traffic does not hold the others back"
    state = budget(Mode.CERTIFIED)
    audits(state, 0, [True] * 20)
    audits(state, 1, [False] * 150)
    assert state.step == -1, "a step that fails stops the walk"


def test_served_bands_are_audited_less_and_less_and_most_near_the_cut() -> None:
    state = budget(Mode.CERTIFIED)
    audits(state, 1, [False] * 120)
    audits(state, 0, [False] * 120)
    assert state.step == 1
    found = [state.rates()]
    for _ in range(1500):
        draw = state.draw(0, dice=0.0)
        assert draw is not None
        state.audited(draw, is_wrong=False)
        if state.rates() != found[-1]:
            found.append(state.rates())
    usual = [rates[0] for rates in found]
    assert usual == sorted(usual, reverse=True)
    assert all(rates[2] == 1.0 for rates in found), "a band that is not served costs no call"
    assert found[-1][0] == state.least_rate
    assert found[-1][1] == pytest.approx(4 * state.least_rate)
    assert state.draw(0, dice=0.5) is None


def test_an_alarm_tightens_and_the_last_one_switches_off() -> None:
    state = budget()
    audits(state, 1, [False] * 120)
    audits(state, 0, [False] * 120)
    step, term = state.step, state.term
    assert step == 1
    until_alarm(state)
    assert state.standing is Standing.TIGHTENED
    assert (state.step, state.term) == (step - 1, term + 1)
    assert state.shown().audits == 0, "a new process begins"
    until_alarm(state)
    assert state.standing is Standing.SHADOW, "there is no stricter step: nothing is served"
    audits(state, 0, [False] * 120)
    assert state.standing is Standing.TIGHTENED, "audits may earn it back"
    until_alarm(state)
    assert state.standing is Standing.OFF
    assert state.alarms == ALARMS
    assert not state.serves(0)


def test_an_alarm_sends_certified_mode_back_into_shadow() -> None:
    state = budget(Mode.CERTIFIED)
    audits(state, 0, [False] * 120)
    until_alarm(state)
    assert state.standing is Standing.SHADOW
    assert audits(state, 0, [False] * 120) == [Event.CERTIFIED], "it can be earned again"
    assert state.standing is Standing.TIGHTENED


def test_errors_in_shadow_raise_no_alarm() -> None:
    state = budget(Mode.CERTIFIED)
    assert audits(state, 0, [True] * 300) == []
    assert state.standing is Standing.SHADOW


def test_what_was_drawn_in_an_older_term_is_dropped() -> None:
    state = budget()
    late = drawn(state)
    until_alarm(state)
    assert state.audited(late, is_wrong=True) is None
    assert state.shown().audits == 0


def test_a_reset_begins_anew_as_if_there_had_been_no_alarm() -> None:
    state = budget()
    for _ in range(ALARMS):
        while state.standing in (Standing.SHADOW,):
            audits(state, 0, [False] * 120)
        until_alarm(state)
    assert state.standing is Standing.OFF
    late, term = Draw(state.term, 0, 0, (1.0, 1.0, 1.0)), state.term
    state.reset()
    assert state.standing is Standing.SERVING
    assert (state.term, state.shown().audits) == (term + 1, 0)
    assert state.audited(late, is_wrong=True) is None


def test_the_state_comes_back_from_what_is_stored() -> None:
    state = budget(Mode.CERTIFIED)
    rng = Random(2)
    for _ in range(400):
        state.audited(drawn(state, rng.randrange(3)), rng.random() < 0.01)
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Budget)
    assert back == state
    assert back.shown() == state.shown()
    assert len(msgspec.msgpack.encode(state)) < 2000, "a state is some hundred numbers"


def certified_wrongly(seed: int) -> bool:
    """True error at the budget in every band, 1,500 would-be hits at the rates that are asked."""
    rng, state = Random(seed), budget(Mode.CERTIFIED, max_error=0.1)
    for _ in range(1500):
        draw = state.draw(rng.randrange(3), rng.random())
        if draw is not None and state.audited(draw, rng.random() < 0.1) is Event.CERTIFIED:
            return True
    return False


def test_what_does_not_deserve_it_is_hardly_ever_certified() -> None:
    assert sum(certified_wrongly(seed) for seed in range(12)) <= 2


def test_the_shown_bound_lies_above_what_was_seen_and_falls() -> None:
    state = budget()
    bounds = []
    for _ in range(5):
        audits(state, 0, [False] * 40)
        bounds.append(state.shown().bound)
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 0.05
    audits(state, 0, [True])
    shown = state.shown()
    assert shown.bound > shown.wrong / shown.audits
    assert shown.interval[1] < shown.bound, "looking often has its price"


def test_in_shadow_the_strictest_band_that_was_audited_is_shown() -> None:
    state = budget(Mode.CERTIFIED)
    audits(state, 1, [False] * 10 + [True])
    shown = state.shown()
    assert (shown.audits, shown.wrong, shown.certified) == (11, 1, False)
    assert shown.bound < 1.0


def test_a_mistaken_judge_makes_certifying_harder_and_alarms_later() -> None:
    judge = measured(right_pairs=500, called_wrong=5, wrong_pairs=200, called_right=20)
    assert judge.certify_at(0.05) < 0.05 < judge.alarm_at(0.05)
    assert judge.corrected(0.05) > 0.05
    plain = Misjudgement()
    assert plain.certify_at(0.05) == plain.alarm_at(0.05) == plain.corrected(0.05) == 0.05


def test_with_a_missing_judge_the_true_error_stays_covered() -> None:
    """The judge misses 30 % of errors; truth 6 %, budget 5 %: must not be certified."""
    judge, passed = Misjudgement(missed=(0.25, 0.35)), 0
    for seed in range(15):
        rng = Random(seed)
        state = Budget(0.05, 1, "b", Mode.CERTIFIED, misjudgement=judge)
        for _ in range(800):
            is_seen = rng.random() < 0.06 * 0.7
            passed += state.audited(drawn(state), is_seen) is Event.CERTIFIED
    assert passed <= 2


def test_a_judge_that_tells_nothing_apart_is_refused() -> None:
    with pytest.raises(ConfigError, match="judge"):
        Misjudgement((0.0, 0.5), (0.0, 0.4))
