"""What the gateway's page tells users of Anthropic's client, run as they would run it."""

from __future__ import annotations

import asyncio
import os
import sys

from docs.blocks import blocks
from gateway.anthropic_upstream import answers
from gateway.conftest import Running
from gateway.upstream import Upstream


async def test_the_page_shows_a_program_that_works(gateway: Running, upstream: Upstream) -> None:
    (shown,) = [
        each.code
        for each in blocks()
        if each.page.name == "gateway.md" and "import Anthropic" in each.code
    ]
    upstream.script = answers()
    environment = {
        **os.environ,
        "ANTHROPIC_BASE_URL": gateway.url,
        "ANTHROPIC_API_KEY": "sk-ant-any",
    }
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        shown,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, wrong = await program.communicate()
    assert (program.returncode, wrong.decode()) == (0, "")
    assert said.split() == [b"False", b"True"]
    assert upstream.calls == 1
