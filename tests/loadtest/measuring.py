"""Requests sent within the test's own event loop, in virtual time where time is measured."""

import sys
import time
from collections.abc import Sequence

from loadtest import client, generate
from loadtest.client import Target
from loadtest.generate import Planned, send
from loadtest.record import Record
from loadtest.scenarios import Request
from loadtest.texts import Text
from tests.loadtest import fake_server, slow_proxy
from tests.virtual_time import in_virtual_time

TEXT = Text("english", "Yes, of course.")
REQUEST = Request("custom_voice", TEXT, {"response_format": "pcm"})

# For tests whose servers and clients are all in one loop.
virtual = in_virtual_time(client, generate, fake_server, slow_proxy, sys.modules[__name__])


async def sent(
    target: Target, moments: Sequence[float | None], request: Request = REQUEST, users: int | None = None
) -> tuple[list[Record], float]:
    """Return the records by index, and the value of time.perf_counter from which their times count."""
    planned = [Planned(index, request, moment) for index, moment in enumerate(moments)]
    records = list[Record]()
    origin = time.perf_counter()
    await send(target, planned, origin, records.append, users=users)
    return sorted(records, key=lambda record: record.index), origin
