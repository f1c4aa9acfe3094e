"""Audits, simulated: what is wrong is found and corrected, what is right is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from thinkonce.kv.reuse.auto import Auto
from thinkonce.kv.reuse.budget import AuditBudget
from thinkonce.kv.reuse.ladder import EXACT, Case, Ladder
from thinkonce.kv.reuse.meter import Audit, Key, Meter, Verdict

Draw = Callable[[], Audit]
RUNGS = ("link 16", "link 32", "link 64")
EXACT_TOKENS = 2112.0
COSTS = {"link 16": 192.0, "link 32": 320.0, "link 64": 576.0}
KEY = Key("shop", "link 16")
CASE = Case("shop", COSTS.__getitem__, EXACT_TOKENS)
SEEDS = range(10)


def traffic(seed: int, agreement: float, divergence: float) -> Draw:
    """Prompts that differ: some are easy, some are not; their KL has a long tail."""
    drawn = random.Random(seed)

    def audit() -> Audit:
        ease = drawn.betavariate(12 * agreement, 12 * (1 - agreement)) if agreement < 1 else 1.0
        agreed = sum(drawn.random() < ease for _ in range(16))
        return Audit(divergence * drawn.lognormvariate(-0.5, 1.0), agreed)

    return audit


def audits_until(meter: Meter, draw: Draw, verdict: Verdict, most: int = 400) -> int | None:
    for count in range(1, most + 1):
        if meter.audited(KEY, draw()).verdict is verdict:
            return count
    return None


def test_nothing_is_known_before_the_first_audit() -> None:
    standing = Meter().standing(KEY)
    assert (standing.audits, standing.verdict) == (0, Verdict.OPEN)
    assert (standing.lower, standing.upper) == (0.0, 1.0)


def test_what_always_agrees_holds_after_twenty_audits() -> None:
    assert audits_until(Meter(), lambda: Audit(0.001, 16), Verdict.HOLDS) == 20


def test_one_audit_condemns_nothing() -> None:
    assert Meter().audited(KEY, Audit(3.0, 0)).verdict is Verdict.OPEN


def test_a_setting_far_outside_the_bounds_fails_soon() -> None:
    found = [audits_until(Meter(), traffic(seed, 0.7, 0.4), Verdict.FAILS) for seed in SEEDS]
    assert all(count is not None and count <= 40 for count in found), found


def test_divergence_alone_fails_a_setting_whose_tokens_agree() -> None:
    found = [audits_until(Meter(), traffic(seed, 0.99, 0.3), Verdict.FAILS) for seed in SEEDS]
    assert all(count is not None and count <= 40 for count in found), found


def test_a_setting_well_within_the_bounds_is_seldom_condemned() -> None:
    failed = [audits_until(Meter(), traffic(seed, 0.985, 0.01), Verdict.FAILS) for seed in SEEDS]
    assert sum(count is not None for count in failed) <= 2, failed


def test_a_setting_outside_the_bounds_seldom_ever_holds() -> None:
    held = [audits_until(Meter(), traffic(seed, 0.92, 0.04), Verdict.HOLDS) for seed in SEEDS]
    assert sum(count is not None for count in held) <= 1, held


def test_a_long_clean_past_does_not_hide_what_is_wrong_now() -> None:
    for seed in SEEDS:
        meter, clean, wrong = Meter(), traffic(seed, 0.995, 0.005), traffic(seed, 0.6, 0.5)
        for _ in range(500):
            meter.audited(KEY, clean())
        found = audits_until(meter, wrong, Verdict.FAILS)
        assert found is not None
        assert found <= 40


def test_audits_that_differ_among_prompts_are_worth_fewer_tokens() -> None:
    """Half of the prompts wrong throughout, or every prompt half wrong: the same mean."""
    apart, alike = Meter(), Meter()
    for number in range(30):
        split = apart.audited(KEY, Audit(0.01, 16 * (number % 2)))
        even = alike.audited(KEY, Audit(0.01, 8))
    assert split.agreement == even.agreement == 0.5
    assert split.upper - split.lower > 2 * (even.upper - even.lower)


def test_the_interval_is_wilsons() -> None:
    """9 of 10 (one token a prompt): 59.6 % to 98.2 %."""
    meter = Meter()
    for number in range(10):
        standing = meter.audited(KEY, Audit(0.0, int(number != 3), tokens=1))
    assert (round(standing.lower, 3), round(standing.upper, 3)) == (0.596, 0.982)


def test_only_so_many_keys_are_remembered() -> None:
    meter = Meter()
    for number in range(4100):
        meter.audited(Key(str(number), "link 16"), Audit(0.0, 16))
    assert len(meter.standings()) == 4096
    assert meter.standing(Key("0", "link 16")).audits == 0


def climbed(ladder: Ladder, truth: dict[str, Draw], audits: int) -> int:
    """Carry out audits as the ladder asks for them; how many until it served what holds."""
    for count in range(audits):
        setting = ladder.audited_next(CASE)
        if setting is None:
            ladder.answered("shop", EXACT)
        else:
            ladder.audited("shop", setting, truth[setting]())
        if ladder.served(CASE) != "link 16":
            return count + 1
    return audits


def test_a_seeded_degradation_is_corrected_within_forty_audits() -> None:
    """`link 16` served well for long; then what it does is what `link 0` does."""
    for seed in SEEDS:
        good = traffic(seed, 0.995, 0.005)
        wrong = traffic(seed, 0.55, 0.6)
        ladder = Ladder(RUNGS, "link 16", Meter())
        for _ in range(300):
            ladder.audited("shop", "link 16", good())
        assert ladder.served(CASE) == "link 16"
        assert climbed(ladder, {"link 16": wrong}, 100) <= 40
        assert ladder.served(CASE) == "link 32"
        assert ladder.alarms("shop") == 1


def test_a_method_that_never_holds_ends_in_exact() -> None:
    ladder = Ladder(RUNGS, "link 16", Meter())
    draw = traffic(1, 0.7, 0.3)
    for _ in range(130):
        if (setting := ladder.audited_next(CASE)) is not None:
            ladder.audited("shop", setting, draw())
    assert ladder.served(CASE) == EXACT
    assert ladder.served(replace(CASE, namespace="another")) == "link 16", (
        "namespaces are measured apart"
    )


def test_a_setting_that_became_right_is_served_again() -> None:
    ladder, wrong, good = Ladder(RUNGS, "link 16", Meter()), traffic(1, 0.6, 0.5), Audit(0.001, 16)
    climbed(ladder, {"link 16": wrong}, 100)
    for _ in range(300):
        setting = ladder.audited_next(CASE)
        assert setting is not None
        ladder.audited("shop", setting, good)
    assert ladder.served(CASE) == "link 16"


def test_a_cheaper_setting_that_still_fails_is_never_served_and_tried_ever_more_seldom() -> None:
    ladder, good = Ladder(RUNGS, "link 16", Meter()), Audit(0.001, 16)
    wrong = traffic(2, 0.6, 0.5)
    climbed(ladder, {"link 16": wrong}, 100)
    tries = []
    for number in range(3000):
        setting = ladder.audited_next(CASE)
        if setting == "link 16":
            tries.append(number)
        ladder.audited("shop", setting or "", wrong() if setting == "link 16" else good)
        assert ladder.served(CASE) == "link 32"
    waits = [gap for one, next_one in pairwise(tries) if (gap := next_one - one) > 1]
    assert waits[0] > 300
    assert waits[-1] > 1.9 * waits[0]


def test_exact_is_left_again_when_the_dearest_setting_holds() -> None:
    ladder = Ladder(("link 64",), "link 64", Meter())
    climbed(ladder, {"link 64": traffic(1, 0.5, 0.5)}, 40)
    for _ in range(60):
        if (setting := ladder.audited_next(CASE)) is not None:
            ladder.audited("shop", setting, traffic(1, 0.5, 0.5)())
    assert ladder.served(CASE) == EXACT
    assert ladder.audited_next(CASE) is None
    for _ in range(400):
        if (setting := ladder.audited_next(CASE)) is None:
            ladder.answered("shop", EXACT)
        else:
            ladder.audited("shop", setting, Audit(0.0, 16))
    assert ladder.served(CASE) == "link 64"


def test_audits_cost_a_fifth_at_first_and_a_fiftieth_then() -> None:
    budget, saved, cost = AuditBudget(), 1000.0, 1200.0
    spent = []
    for _ in range(20_000):
        budget.hit(saved)
        if budget.allows(cost):
            budget.audited(cost)
        spent.append(budget.spent)
    assert 0.15 <= spent[99] / (100 * saved) <= 0.20
    assert 0.018 <= (spent[-1] - spent[99]) / (19_900 * saved) <= 0.02


def test_a_fiftieth_is_never_exceeded_once_the_larger_share_has_ended() -> None:
    budget, drawn = AuditBudget(), random.Random(3)
    begun = None
    for _ in range(3000):
        budget.hit(drawn.uniform(50.0, 4000.0))
        if not budget.is_careful and begun is None:
            begun = (budget.saved, budget.spent)
        if budget.allows(cost := drawn.uniform(500.0, 5000.0)):
            budget.audited(cost)
        if begun is not None:
            assert budget.spent - begun[1] <= 0.02 * (budget.saved - begun[0]) + 1e-6
    assert budget.spent > 0


def test_an_alarm_gives_the_larger_share_for_a_hundred_hits() -> None:
    budget = AuditBudget()
    for _ in range(500):
        budget.hit(1000.0)
        if budget.allows(1200.0):
            budget.audited(1200.0)
    assert not budget.is_careful
    before = budget.spent
    budget.alarm()
    for _ in range(100):
        budget.hit(1000.0)
        if budget.allows(1200.0):
            budget.audited(1200.0)
    assert not budget.is_careful
    assert 0.15 <= (budget.spent - before) / 100_000 <= 0.21


def test_trials_of_what_saves_nothing_yet_take_the_larger_share_of_what_it_would() -> None:
    budget = AuditBudget()
    for _ in range(1000):
        budget.trial(1000.0)
        if budget.allows(1200.0):
            budget.audited(1200.0)
    assert budget.saved == 0
    assert budget.is_careful
    assert 0.19 <= budget.spent / 1_000_000 <= 0.20


def test_in_steady_state_audits_never_cost_more_than_a_fiftieth_of_what_was_saved_since() -> None:
    for seed in SEEDS:
        drawn, budget = random.Random(seed), AuditBudget()
        saved = spent = 0.0  # since the larger share ended
        for _ in range(3000):
            was_careful = budget.is_careful
            if drawn.random() < 0.3:  # an exact answer saves nothing
                budget.trial(1000.0)
            else:
                budget.hit(worth := drawn.uniform(0, 2000))
                saved = 0.0 if was_careful else saved + worth
            spent = 0.0 if was_careful else spent
            if budget.allows(cost := drawn.uniform(500, 4000)):
                budget.audited(cost)
                spent += 0.0 if was_careful else cost
            assert spent <= 0.02 * saved + 1e-6
            if drawn.random() < 0.001:
                budget.alarm()


def test_where_nothing_is_saved_any_more_trials_are_paid_again() -> None:
    budget = AuditBudget()
    for _ in range(100):
        budget.hit(1000.0)
    for _ in range(99):
        budget.trial(1000.0)
    assert not budget.is_careful
    assert not budget.allows(200.0)
    budget.trial(1000.0)
    assert budget.is_careful
    assert budget.allows(200.0)


def test_auto_tries_from_the_dearest_and_keeps_what_it_serves_honest() -> None:
    auto, good = Auto(RUNGS, Meter()), Audit(0.001, 16)
    order = []
    for _ in range(30):
        setting = auto.audited_next(CASE)
        assert setting is not None
        order.append(setting)
        auto.audited("shop", setting, good)
    assert order[:20] == ["link 64"] * 20
    assert set(order[20:]) == {"link 32", "link 64"}


def test_what_was_not_spent_pays_for_a_few_audits_only() -> None:
    budget = AuditBudget()
    budget.allows(1000.0)
    for _ in range(10_000):
        budget.hit(1000.0)
    audits = 0
    while budget.allows(1000.0):
        budget.audited(1000.0)
        audits += 1
    assert audits == 4


def answers(auto: Auto, truth: dict[str, Draw], count: int) -> list[str]:
    """Answers, each followed by the audit that `auto` asks for."""
    served = []
    for _ in range(count):
        served.append(auto.served(CASE))
        auto.answered("shop", served[-1])
        setting = auto.audited_next(CASE)
        if setting is not None:
            auto.audited("shop", setting, truth[setting]())
    return served


def test_auto_is_exact_until_something_holds_and_takes_the_cheapest_that_does() -> None:
    for seed in range(10):
        truth = {
            "link 16": traffic(seed, 0.7, 0.3),
            "link 32": traffic(seed, 0.995, 0.01),
            "link 64": traffic(seed, 1.0, 0.001),
        }
        served = answers(Auto(RUNGS, Meter()), truth, 300)
        assert set(served[:20]) == {EXACT}
        assert served[-1] == "link 32"
        assert "link 16" not in served


def test_auto_stays_exact_where_nothing_holds() -> None:
    truth = {setting: traffic(3, 0.85, 0.1) for setting in RUNGS}
    auto = Auto(RUNGS, Meter())
    assert set(answers(auto, truth, 1500)) == {EXACT}
    assert auto.audited_next(CASE) is None


def test_auto_never_serves_what_costs_more_than_the_exact_way() -> None:
    auto = Auto(RUNGS, Meter())
    for _ in range(30):
        auto.audited("shop", "link 16", Audit(0.0, 16))
    assert auto.served(CASE) == "link 16"
    assert auto.served(replace(CASE, exact=192.0)) == EXACT


def test_auto_takes_back_at_once_what_fails_and_says_so() -> None:
    auto, wrong = Auto(RUNGS, Meter()), traffic(4, 0.5, 0.6)
    for _ in range(50):
        assert not auto.audited("shop", "link 16", Audit(0.001, 16))
    assert auto.served(CASE) == "link 16"
    auto.answered("shop", "link 16")
    alarms = [auto.audited("shop", "link 16", wrong()) for _ in range(40)]
    assert sum(alarms) == 1
    assert auto.served(CASE) == EXACT


@pytest.mark.parametrize("setting", RUNGS)
def test_a_setting_that_failed_is_tried_again_after_many_answers(setting: str) -> None:
    auto, wrong = Auto((setting,), Meter()), traffic(5, 0.5, 0.6)
    for _ in range(40):
        auto.audited("shop", setting, wrong())
    assert auto.audited_next(CASE) is None
    waited = 0
    while auto.audited_next(CASE) is None:
        auto.answered("shop", EXACT)
        waited += 1
        assert waited < 200_000
    assert waited >= 2000
