"""What was used longest ago makes room, against a list that is too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkonce.kv.reuse import latest
from thinkonce.kv.reuse.latest import Latest


@given(st.lists(st.integers(0, 12), max_size=60))
def test_it_holds_the_keys_used_last_in_the_order_of_their_use(keys: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latest, "MOST", 5)
        found, model = Latest[int, list[int]](), list[int]()
        for key in keys:
            is_new = key not in model
            value = found.used(key, list)
            assert value == [] if is_new else value, "what was forgotten begins anew"
            value.append(key)
            model = [*(each for each in model if each != key), key][-5:]
            assert list(found) == model
