"""The service on one machine: a Ray of its own, the application, and nothing left behind."""

import os
import threading
from types import TracebackType

import httpx
import ray
from ray import serve

from deployments.app import APP_NAME, build_app
from deployments.settings import AppArgs

_POLL_S = 0.2
# Deployments ask Ray for shares of a CPU as scheduling weights; a small machine must still place them all.
_MIN_CPUS = 4


class LocalService:
    """Context manager around Ray and the application."""

    def __init__(self, args: AppArgs, host: str, port: int) -> None:
        self._args = args
        self._host = host
        self._port = port

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    def __enter__(self) -> "LocalService":
        # "local" always starts a Ray of our own, whatever other cluster this machine may know of.
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, _MIN_CPUS),
            include_dashboard=False,
            log_to_driver=True,
            configure_logging=False,
        )
        serve.start(http_options={"host": self._host, "port": self._port})
        target = serve.RunTarget(target=build_app(self._args), name=APP_NAME, route_prefix="/")
        serve.run_many([target], wait_for_applications_running=False)
        return self

    def wait_ready(self, stop: threading.Event) -> bool:
        """True once /readyz answers 200; False if `stop` was set first."""
        while not stop.is_set():
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5.0, trust_env=False).status_code == 200:
                    return True
            except httpx.TransportError:
                pass  # the proxy is not listening yet
            stop.wait(_POLL_S)
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
