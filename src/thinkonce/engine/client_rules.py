"""What a known client may do, as far as answering it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ("ClientRules",)


class Allowance(Protocol):
    """How many requests it has left in this minute."""

    def has_one(self) -> bool: ...

    def take(self) -> bool: ...


class Quota(Protocol):
    """How many bytes its answers may take. See `gateway.quota`."""

    refused: bool

    def has_room(self, size: int) -> bool: ...

    def takes(self, size: int) -> bool: ...

    async def refresh(self) -> bool: ...


class Room(Protocol):
    """How many requests it may have under way. See `upstream.room`."""

    def has_one(self) -> bool: ...


class ClientRules(Protocol):
    """Belongs to one event loop."""

    @property
    def name(self) -> str: ...

    @property
    def tenant(self) -> str: ...

    @property
    def allowance(self) -> Allowance | None: ...

    @property
    def quota(self) -> Quota | None: ...

    @property
    def room(self) -> Room | None: ...

    def may_ask(self) -> bool:
        """Whether a request would be let in now."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether the configuration does not know it any more."""
        ...

    @property
    def is_limited(self) -> bool:
        """Whether it may use some models only."""
        ...

    @property
    def is_strict(self) -> bool:
        """Whether it is served by strict mode."""
        ...

    def check_model(self, model: str) -> None:
        """Raises HttpError 403 for a model that is not this client's."""
        ...

    def check_body(self, body: Mapping[str, Any]) -> None:
        """Raises HttpError 403 for a member by which a server could choose another model."""
        ...
