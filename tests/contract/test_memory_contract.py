"""The memory tier keeps the contract, whatever its policy."""

import pytest

from thinkonce.eviction.policy import POLICIES
from thinkonce.testing.tier_contract import TierContract
from thinkonce.tiers.memory import MemoryTier


class TestMemory(TierContract):
    @pytest.fixture(params=sorted(POLICIES))
    def tier(self, clock, request):
        return MemoryTier(policy=request.param, clock=clock.clock)
