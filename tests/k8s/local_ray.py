"""A Ray cluster of one node, started as KubeRay starts it: `ray start --head --block` with token authentication."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from k8s.render.__main__ import ROOT

BIN = Path(sys.executable).parent
START_S = 120


@dataclass(frozen=True)
class LocalRay:
    """A cluster: its ports on 127.0.0.1, and the environment with which clients find it."""

    dashboard: int
    agent: int
    metrics: int
    environment: dict[str, str]

    def serve(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Ray's command `serve`."""
        command = [str(BIN / "serve"), *arguments, "-a", f"http://127.0.0.1:{self.dashboard}"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def ask(self, path: str) -> httpx.Response:
        """Return the answer of the dashboard."""
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        return httpx.get(f"http://127.0.0.1:{self.dashboard}{path}", headers=token, timeout=60, trust_env=False)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def local_ray(cpus: int, object_store_bytes: int) -> Iterator[LocalRay]:
    """Start a cluster, and end only its own processes: `ray stop` would end all Ray processes of the machine."""
    directory = tempfile.mkdtemp(prefix="ray-")  # short, because the length of socket paths is limited
    dashboard, agent, metrics, client = free_ports(4)
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", "--temp-dir", directory, "--port", "0"]
    command += ["--num-cpus", str(cpus), "--object-store-memory", str(object_store_bytes)]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)]
    command += ["--dashboard-agent-listen-port", str(agent), "--metrics-export-port", str(metrics)]
    command += ["--ray-client-server-port", str(client)]
    log = Path(directory) / "start.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    ray = LocalRay(dashboard, agent, metrics, environment)
    try:
        _wait(ray, process, log)
        yield ray
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        psutil.wait_procs(family, timeout=20)
        for one in [psutil.Process(process.pid)] if process.poll() is None else []:
            one.kill()
        for one in family:
            if one.is_running():
                one.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _wait(ray: LocalRay, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if ray.ask("/api/serve/applications/").status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.3)
    raise AssertionError(f"Ray did not start: {log.read_text()}")
