"""Single calls to other deployments, which survive the replica that they go to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from deployments.errors import REPLICA_LOST

log = logging.getLogger("ray.serve")

Result = TypeVar("Result")

_ATTEMPTS = 3  # few: the call itself may be what kills replicas
_FIRST_PAUSE_S = 0.1  # before the second attempt; each further pause is twice as long


async def answer(call: Callable[[], Awaitable[Result]]) -> Result:
    """Return the answer to `call`, which calls any replica. If that replica is lost, call again.

    The call must be one that may be made twice. Raises what the last attempt raises, or any other error of the call.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return await call()
        except REPLICA_LOST as error:
            log.warning("a replica was lost (%s); the call is made again", error)
            await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
    return await call()
