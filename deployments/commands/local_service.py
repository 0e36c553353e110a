"""The service on one machine: it starts a new Ray and the application, and stops both at the end."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from deployments.app import APP_NAME, build_app
from deployments.commands.start_checks import OBJECT_STORE_BYTES, StartFailed, describe_failure
from deployments.settings import AppArgs
from qwen_tts.cpus import usable_cpus

_POLL_S = 0.5
# Settings of Ray, unless the environment has others. Ray runs its workers at niceness 15, and any other program of the
# machine would then take their CPU time. At the end of a stream, a replica's event loop stands still until the caller
# has confirmed the last item. For each stream of a dead caller, that would be a second: Ray looks once a second
# whether the caller is dead, when it has not been reached for a second.
RAY_SETTINGS = {
    "RAY_worker_niceness": "0",
    "RAY_core_worker_rpc_server_reconnect_timeout_base_s": "0",
    "RAY_grpc_client_check_connection_status_interval_milliseconds": "50",
}
# Deployments request shares of a CPU as scheduling weights; a small machine must still place them all.
_MIN_CPUS = 4
# The beginning of a deployment's message after an exception in a replica's constructor, in Ray 2.60.
_FAILED_ONCE = "failed to start"
# A part of the raylet's line after it has ended workers because the machine's memory ran out, in Ray 2.60.
_KILLED = "killed due to memory pressure"


@contextmanager
def local_service(args: AppArgs, host: str, port: int) -> Iterator[None]:
    """Start Ray and the application, and stop both at the end. Raises StartFailed."""
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        try:
            # "local" always starts a new Ray, even if this machine is configured for another cluster.
            ray.init(
                address="local",
                num_cpus=max(usable_cpus(), _MIN_CPUS),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                configure_logging=False,
            )
            serve.start(http_options={"host": host, "port": port})
            target = serve.RunTarget(target=build_app(args), name=APP_NAME, route_prefix="/")
            serve.run_many([target], wait_for_applications_running=False)
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError, RayError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise StartFailed(f"Ray cannot start: {reason}; its files are in /tmp/ray or RAY_TMPDIR") from None
        yield
    finally:
        if ray.is_initialized():
            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def wait_ready(
    url: str,
    stop: threading.Event,
    follow: Callable[[], list[str]],
    ready: Callable[[str], None],
    names: dict[str, str],
) -> bool:
    """Return True once /readyz answers 200, or False if `stop` was set first.

    `follow` returns the new lines of the log. `ready` is called with the name of every deployment whose replicas have
    started. `names` are the deployments' names on the screen. Raises StartFailed.
    """
    while not stop.is_set():
        if any(_KILLED in line for line in follow()):
            raise StartFailed(describe_failure("a replica", _KILLED))
        application = _status()
        for name, deployment in application.deployments.items():
            if deployment.status.value == "HEALTHY":
                ready(name)
            elif deployment.status.value == "DEPLOY_FAILED" or _FAILED_ONCE in deployment.message:
                raise StartFailed(describe_failure(names.get(name, name), deployment.message))
        if application.status is ApplicationStatus.DEPLOY_FAILED:
            raise StartFailed(describe_failure("the application", application.message))
        if application.status is ApplicationStatus.RUNNING and _answers(url):
            follow()
            return True
        stop.wait(_POLL_S)
    return False


def _status() -> ApplicationStatusOverview:
    try:
        return serve.status().applications[APP_NAME]
    except RayError as error:
        raise StartFailed(describe_failure("Serve's controller", str(error))) from None


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False  # the proxy does not listen yet
