"""Loading or computing: the sooner one, and a slow load is not for ever."""

from __future__ import annotations

from thinkonce.kv.generation.rates import Rates


def test_what_was_not_measured_is_loaded_and_then_the_sooner_one_wins() -> None:
    rates = Rates()
    assert rates.load_is_sooner()
    rates.prefill.add(10, 1.0)
    assert rates.load_is_sooner()
    rates.load.add(10, 0.5)
    assert rates.load_is_sooner()
    rates.load.add(10, 100.0)
    assert not rates.load_is_sooner()


def test_one_slow_load_does_not_end_loading() -> None:
    rates = Rates()
    rates.prefill.add(10, 1.0)
    rates.load.add(10, 50.0)
    asked = loads = 0
    while loads < 20 and asked < 1000:
        asked += 1
        if rates.load_is_sooner():
            rates.load.add(10, 0.1)
            loads += 1
    assert loads == 20
    assert rates.load_is_sooner()
