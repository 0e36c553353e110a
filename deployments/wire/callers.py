"""The liveness of the replicas that have streams here.

Ray does not end a call when the process of its caller dies: the stream would go on to its end, and keep its slot. So a
replica watches its callers, and ends the streams of those that are lost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import ray
from ray import serve
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError
from ray.serve.exceptions import RayServeException

log = logging.getLogger("ray.serve")

_EVERY_S = 0.5
SERVE_NAMESPACE = "serve"


def replica_name() -> str | None:
    """Return the name of the Ray actor of the replica in this process, or None outside a replica."""
    try:
        return serve.get_replica_context().replica_id.to_full_id_str()
    except RayServeException:
        return None


class Liveness:
    """Asks replicas by their names whether they live. It keeps their handles."""

    def __init__(self) -> None:
        self._handles: dict[str, ActorHandle[object]] = {}

    async def __call__(self, caller: str) -> bool:
        """Return False if the process of `caller` is lost. A replica that does not answer in time may live."""
        try:
            if caller not in self._handles:
                self._handles[caller] = await asyncio.to_thread(ray.get_actor, caller, SERVE_NAMESPACE)
            async with asyncio.timeout(_EVERY_S):
                await self._handles[caller].__ray_ready__.remote()
        except (ValueError, ActorDiedError):  # no actor has this name any more
            self._handles.pop(caller, None)
            return False
        except (TimeoutError, RayError):  # it is busy, or the connection is broken and may come back
            return True
        return True


class Callers:
    """Watches the callers of this replica's streams, from one event loop."""

    def __init__(self, lives: Callable[[str], Awaitable[bool]] | None = None) -> None:
        self._lives = Liveness() if lives is None else lives
        self._streams: dict[str, set[Callable[[], object]]] = {}  # what ends each stream, by caller
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def watch(self, caller: str | None, end: Callable[[], object]) -> Iterator[None]:
        """Call `end` once if `caller` is lost within the context. None is a caller that is not watched."""
        if caller is None:
            yield
            return
        streams = self._streams.setdefault(caller, set())
        assert end not in streams, "one stream is watched twice"
        streams.add(end)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            streams.discard(end)
            if not streams and self._streams.get(caller) is streams:
                del self._streams[caller]

    async def _watch(self) -> None:
        """Ask all callers in turn, while there are streams."""
        while self._streams:
            await asyncio.sleep(_EVERY_S)
            callers = list(self._streams)
            alive = await asyncio.gather(*map(self._lives, callers))
            for caller, lives in zip(callers, alive, strict=True):
                if not lives:
                    lost = self._streams.pop(caller, set())
                    log.warning("%s is lost; %d streams that it called end", caller, len(lost))
                    for end in tuple(lost):
                        end()
