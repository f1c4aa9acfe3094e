"""A gateway in front of a scripted provider, as the gateway's own tests have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from gateway.conftest import Stage
from gateway.upstream import Upstream


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    upstream = Upstream()
    await upstream.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(upstream.stop)
        yield Stage(stack, upstream)
