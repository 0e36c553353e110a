"""A Kubernetes API server on a real socket, for kubectl and the `kubernetes` client, with its objects in memory."""

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

import trustme
from aiohttp import web

from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.handlers import Handlers
from tests.deployments.commands.cluster.store import Kind, Store
from tests.deployments.commands.cluster.validation import RayServiceRules

KUBERNETES = [
    Kind("v1", "Namespace", "namespaces", namespaced=False),
    Kind("v1", "Pod", "pods", has_status=True),
    Kind("v1", "Event", "events"),
    Kind("v1", "Service", "services", has_status=True),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Secret", "secrets"),
    Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", has_status=True),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("apps/v1", "StatefulSet", "statefulsets", has_status=True),
    Kind("batch/v1", "Job", "jobs", has_status=True),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", has_status=True),
    Kind("networking.k8s.io/v1", "Ingress", "ingresses", has_status=True),
    Kind("gateway.networking.k8s.io/v1", "Gateway", "gateways", has_status=True),
    Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", has_status=True),
]
KUBERAY = [
    Kind("ray.io/v1", "RayService", "rayservices", has_status=True),
    Kind("ray.io/v1", "RayCluster", "rayclusters", has_status=True),
]
_Result = TypeVar("_Result")
_PATIENCE_S = 120


class ApiServer:
    """A context manager whose server runs in a thread. kuberay: whether KubeRay's custom resources are installed.

    logs: (pod, container, previous) -> lines, which a follower receives as they grow; forbidden: (verb, plural) pairs
    that are answered with 403.
    """

    def __init__(self, kuberay: bool = True) -> None:
        self.store = Store(KUBERNETES + (KUBERAY if kuberay else []), RayServiceRules())
        self._handlers = Handlers(self.store)
        self.logs = self._handlers.logs
        self.forbidden = self._handlers.forbidden
        self.requests = self._handlers.requests
        self.url = ""
        self._authority = trustme.CA()
        self.authority_pem: bytes = self._authority.cert_pem.bytes()  # kubectl shows its token over TLS only
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-server")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_PATIENCE_S)
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}, "")
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._handlers.faults:
            raise self._handlers.faults[0]

    def call(self, function: Callable[[Store], _Result]) -> _Result:
        """Run `function` on the store, in the thread of the store."""

        async def run() -> _Result:
            return function(self.store)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_PATIENCE_S)

    def start_task(self, run: Callable[[], Any]) -> "asyncio.Future[None]":
        """Start a coroutine beside the server, for a controller. Its owner cancels it; else it ends with the server."""
        return asyncio.run_coroutine_threadsafe(run(), self._loop)  # type: ignore[return-value]  # the future's own result

    def end_watches_after(self, seconds: float) -> None:
        """Those that begin from now on, if their clients ask for no less."""
        self._handlers.longest_watch_s = seconds

    def kind(self, name: str) -> Kind:
        return self.store.kind(name)

    def create(self, body: Json, namespace: str = "default") -> Json:
        """Create an object as another client would, without a request."""
        writer = ("tests", "Update", "")
        made = self.call(lambda store: store.create(self.kind(body["kind"]), namespace, body, writer, True, False))
        if "status" not in body:
            return made
        return self.replace(made | {"status": body["status"]}, "tests", "status", namespace)

    def replace(self, body: Json, manager: str, subresource: str = "", namespace: str = "default") -> Json:
        kind, name, writer = self.kind(body["kind"]), body["metadata"]["name"], (manager, "Update", subresource)
        return self.call(lambda store: store.replace(kind, namespace, name, body, writer))

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self.call(lambda store: store.delete(self.kind(kind), namespace, name))

    def find(self, kind: str, name: str, namespace: str = "default") -> Json:
        """Return an object. Raises Refused."""
        return self.call(lambda store: store.get(self.kind(kind), namespace, name))

    def find_all(self, kind: str, namespace: str = "default") -> list[Json]:
        return self.call(lambda store: store.find(self.kind(kind), namespace))

    def wait_for_request(self, part: str) -> None:
        """Wait until a request that contains `part` has arrived. Raises TimeoutError."""
        self.wait_until(lambda: any(part in request for request in self.requests))

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Raises TimeoutError."""
        end = time.monotonic() + _PATIENCE_S
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.02)

    async def _start(self) -> None:
        self._runner = web.AppRunner(self._handlers.app(), shutdown_timeout=0.1)
        await self._runner.setup()
        encryption = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1").configure_cert(encryption)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=encryption)
        await site.start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
