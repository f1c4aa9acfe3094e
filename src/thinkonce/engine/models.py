"""The list of models of all pools: each is asked, the first to name a model describes it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from thinkonce.errors import UpstreamError
from thinkonce.upstream.failure import Broken, Refused
from thinkonce.upstream.pools import Pool, Pools
from thinkonce.upstream.request import Request, Sender, owner_of

__all__ = ("list_models",)

log = logging.getLogger("thinkonce")

MAX_LIST = 8 * 1024 * 1024  # bytes

Listed = list[dict[str, Any]]


class _List(msgspec.Struct):
    data: Listed


_decode = msgspec.json.Decoder(_List).decode


async def list_models(client: Sender, pools: Pools, request: Request) -> bytes:
    """An OpenAI list, in the order of the pools. Raises UpstreamError if none of them answers.

    Only the first pool is shown the client's credential (a query may hold one too): the pools
    may belong to different parties, and no model's name says for whom it is meant.
    """
    stranger = msgspec.structs.replace(request, credential=(), query="", owner=owner_of(request))
    asked = [request] + [stranger] * (len(pools.all) - 1)
    answers = await asyncio.gather(
        *(_models_of(client, pool, each) for pool, each in zip(pools.all, asked, strict=True))
    )
    failures = [each for each in answers if isinstance(each, UpstreamError)]
    if len(failures) == len(answers):
        raise failures[0]
    merged: dict[str, dict[str, Any]] = {}
    for listed in answers:
        for model in [] if isinstance(listed, UpstreamError) else listed:
            merged.setdefault(str(model.get("id")), model)
    return msgspec.json.encode({"object": "list", "data": list(merged.values())})


async def _models_of(client: Sender, pool: Pool, request: Request) -> Listed | UpstreamError:
    try:
        return await _asked(client, pool, request)
    except UpstreamError as error:
        log.warning("upstream %s does not list its models: %s", pool.name, error)
        return error


async def _asked(client: Sender, pool: Pool, request: Request) -> Listed:
    exchange = await client.send(pool, request)
    try:
        body = await exchange.read_all(MAX_LIST)
        if exchange.status != 200:
            raise Refused(exchange.status, exchange.headers, body or b"")
        return _decode(body or b"").data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Broken(f"the list of models of upstream {pool.name} cannot be read") from error
    finally:
        exchange.close()
