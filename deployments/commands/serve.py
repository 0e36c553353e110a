"""The service on one machine: a Ray of its own, the application, and nothing left behind."""

import os
import socket
import threading
from types import TracebackType

import httpx
import ray
from ray import serve
from ray.serve.schema import ApplicationStatus

from deployments.app import APP_NAME, build_app
from deployments.settings import AppArgs

_POLL_S = 0.2
# Deployments ask Ray for shares of a CPU as scheduling weights; a small machine must still place them all.
_MIN_CPUS = 4


class StartFailed(Exception):
    """The service cannot start; the message says why."""


class LocalService:
    """Context manager around Ray and the application. Raises StartFailed."""

    def __init__(self, args: AppArgs, host: str, port: int) -> None:
        self._args = args
        self._host = host
        self._port = port

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    def __enter__(self) -> "LocalService":
        _check_port(self._host, self._port)
        # Ray runs its workers at niceness 15, where any other program of this machine would silence them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # "local" always starts a Ray of our own, whatever other cluster this machine may know of.
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, _MIN_CPUS),
            include_dashboard=False,
            configure_logging=False,
        )
        serve.start(http_options={"host": self._host, "port": self._port})
        target = serve.RunTarget(target=build_app(self._args), name=APP_NAME, route_prefix="/")
        serve.run_many([target], wait_for_applications_running=False)
        return self

    def wait_ready(self, stop: threading.Event) -> bool:
        """True once /readyz answers 200; False if `stop` was set first. Raises StartFailed."""
        while not stop.is_set():
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5.0, trust_env=False).status_code == 200:
                    return True
            except httpx.TransportError:
                pass  # the proxy is not listening yet
            application = serve.status().applications[APP_NAME]
            if application.status is ApplicationStatus.DEPLOY_FAILED:
                # A deployment's message is a traceback; its last line is the error.
                messages = [deployment.message.strip() for deployment in application.deployments.values()]
                causes = {message.splitlines()[-1] for message in messages if "Error" in message}
                raise StartFailed("\n".join(["the models did not load", *sorted(causes)]))
            stop.wait(_POLL_S)
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _check_port(host: str, port: int) -> None:
    """Serve's proxy would retry a taken port for ever."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartFailed(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
