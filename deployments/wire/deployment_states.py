"""The states of deployments: how many replicas Serve has, and the loads that the replicas report.

A replica or a controller that hangs delays nobody for more than `_PATIENCE_S`. What it would have said is missing then.
"""

import asyncio
import contextvars
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ServeStatus

from deployments.wire.load import Load, load_of

log = logging.getLogger("ray.serve")

_PATIENCE_S = 1.0
# States are shared by all callers within this time.
_FRESH_S = 1.0


@dataclass(frozen=True)
class DeploymentState:
    """`status` and the number of `replicas` by their state are Serve's, or None if its controller does not answer.

    `loads` are those of all running replicas, or None if one of them does not answer.
    """

    status: str | None
    replicas: Mapping[str, int] | None
    loads: tuple[Load, ...] | None


class DeploymentStates:
    """The states of the deployments behind `handles`, which have names of the caller's choice."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._handles = handles
        self._read_s = -_FRESH_S
        self._reading: asyncio.Task[Mapping[str, DeploymentState]] | None = None
        self._controller: asyncio.Future[ServeStatus] | None = None

    async def read(self) -> Mapping[str, DeploymentState]:
        """Return the states, at most `_FRESH_S` old, by the names of the handles."""
        now = time.monotonic()
        if self._reading is None or (self._reading.done() and now - self._read_s >= _FRESH_S):
            self._read_s = now
            # A new context: Serve finds the calls of a request by its context, and cancels them with the request.
            self._reading = asyncio.create_task(self._read(), context=contextvars.Context())
        return await asyncio.shield(self._reading)

    async def _read(self) -> Mapping[str, DeploymentState]:
        asked = asyncio.gather(*map(_loads, self._handles.values()))
        status, loads = await asyncio.gather(self._ask_controller(), asked)
        return {
            name: _state(handle, status, found)
            for (name, handle), found in zip(self._handles.items(), loads, strict=True)
        }

    async def _ask_controller(self) -> ServeStatus | None:
        """Return the status of all applications, or None. The call blocks, so at most one thread waits for it."""
        if self._controller is None:
            self._controller = asyncio.ensure_future(_serve_status())
        await asyncio.wait([self._controller], timeout=_PATIENCE_S)
        if not self._controller.done():
            return None
        done, self._controller = self._controller, None
        try:
            return done.result()
        except (RayError, RayServeException) as error:
            log.warning("Serve's controller does not tell its status: %s", error)
            return None


async def _serve_status() -> ServeStatus:
    return await asyncio.to_thread(serve.status)


async def _loads(handle: DeploymentHandle[Any]) -> tuple[Load, ...] | None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            stats = await handle.broadcast("record_autoscaling_stats").results_async()
    except (TimeoutError, RayError, RayServeException):
        return None
    return tuple(map(load_of, stats))


def _state(
    handle: DeploymentHandle[Any], status: ServeStatus | None, loads: tuple[Load, ...] | None
) -> DeploymentState:
    application = None if status is None else status.applications.get(handle.app_name)
    deployment = None if application is None else application.deployments.get(handle.deployment_name)
    if deployment is None:
        return DeploymentState(None, None, loads)
    replicas = {str(getattr(state, "value", state)): number for state, number in deployment.replica_states.items()}
    return DeploymentState(deployment.status.value, replicas, () if not replicas else loads)
