"""The terms of a request that wants a place, and the order in which requests wait."""

from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import blake2b
from typing import Literal

Priority = Literal["interactive", "batch"]


@dataclass(frozen=True)
class Terms:
    """The class of a request, its longest wait, and a digest by which it is recognised when it comes back.

    `caller` is the name of the API key, or None on a service without keys.
    """

    priority: Priority
    max_wait_s: float
    key: bytes
    caller: str | None = None

    def of_text(self, text: str) -> "Terms":
        """Return the terms of a request with this text."""
        return replace(self, key=blake2b(self.key + text.encode(), digest_size=16).digest())


class Rank(IntEnum):
    """The order of requests that wait. Within a rank they are ordered by arrival."""

    RETURNING = 0  # at the promised time
    INTERACTIVE = 1
    FURTHER = 2  # a further stream of a request that has begun, while its audio is not due soon
    RETURNING_BATCH = 3
    BATCH = 4


# The ranks of requests that come back at the promised time, and of new ones.
RANKS: dict[Priority, tuple[Rank, Rank]] = {
    "interactive": (Rank.RETURNING, Rank.INTERACTIVE),
    "batch": (Rank.RETURNING_BATCH, Rank.BATCH),
}
