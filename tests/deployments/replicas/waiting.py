"""Waiting in tests for a condition that nothing signals."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 30.0


async def until(holds: Callable[[], bool]) -> None:
    """Return as soon as `holds()`. Fails after PATIENCE_S."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if holds():
                return
            await asyncio.sleep(0.001)
