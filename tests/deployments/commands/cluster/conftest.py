"""Fixtures: an API server for each test, its kubeconfig, and the real kubectl."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from deployments.commands.cluster import waiting
from deployments.commands.main import main
from k8s.render.__main__ import CACHE
from k8s.render.binaries import find_program
from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.clock import SettledClock
from tests.deployments.commands.cluster.handlers import TOKEN
from tests.deployments.commands.cluster.operator import Operator

# Ctrl-C is heard also where the tests run in the background, whose shell has it ignored by all that it starts.
_MAIN = (
    "import signal; signal.signal(2, signal.default_int_handler); from deployments.commands.main import main; main()"
)
QWEN_TTS = (sys.executable, "-c", _MAIN)
Run = Callable[..., Result]
Helm = Callable[..., str]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


def assert_said(result: Result, *words: str) -> None:
    assert result.exit_code == 0, result.output
    for word in words:
        assert word in result.stdout


def assert_refused(result: Result, *words: str) -> None:
    """Check for exit code 1 and an error message that gives the reason, without a traceback or the usage."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Error: " in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def kuberay() -> bool:
    """Return whether KubeRay's custom resources are installed."""
    return True


@pytest.fixture
def server(kuberay: bool) -> Iterator[ApiServer]:
    with ApiServer(kuberay) as running:
        yield running


@pytest.fixture
def operator(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """While it is at work, the clock of the commands that wait stands still."""
    with Operator(server) as running:
        monkeypatch.setattr(waiting, "time", SettledClock(running.settled))
        server.end_watches_after(0.1)
        yield running


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Path:
    """Return a kubeconfig for `server`, the default server of this test."""
    return write_kubeconfig(tmp_path / "kubeconfig", server.url, server.authority_pem)


def write_kubeconfig(path: Path, url: str, authority_pem: bytes, token: str = TOKEN) -> Path:
    """Write a kubeconfig with the contexts `tests` (the current one) and `speech`, whose namespace is speech."""
    contexts = [
        {"name": "tests", "context": {"cluster": "c", "user": "u"}},
        {"name": "speech", "context": {"cluster": "c", "user": "u", "namespace": "speech"}},
    ]
    body = {"apiVersion": "v1", "kind": "Config", "current-context": "tests", "contexts": contexts}
    of_server = {"server": url, "certificate-authority-data": base64.b64encode(authority_pem).decode()}
    body |= {"clusters": [{"name": "c", "cluster": of_server}], "users": [{"name": "u", "user": {"token": token}}]}
    path.write_text(yaml.safe_dump(body), encoding="utf-8")
    return path


@pytest.fixture
def run(kubeconfig: Path) -> Run:
    """Return a function that runs `qwen-tts cluster ...` in this process, with the kubeconfig as an option."""

    def call(command: str, *arguments: str | Path, input: str | None = None) -> Result:
        options = [str(argument) for argument in arguments]
        if "--kubeconfig" not in options:
            options += ["--kubeconfig", str(kubeconfig)]
        return CliRunner().invoke(main, ["cluster", command, *options], input=input)

    return call


@pytest.fixture
def helm(kubeconfig: Path, tmp_path: Path) -> Helm:
    """Return a function that runs the real helm and returns its output. It raises AssertionError if helm fails."""
    path = str(find_program("helm", CACHE))
    environment = os.environ | {f"HELM_{kind}_HOME": str(tmp_path) for kind in ("CACHE", "CONFIG", "DATA")}

    def call(*arguments: str) -> str:
        command = [path, f"--kubeconfig={kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture
def kubectl(kubeconfig: Path, tmp_path: Path) -> Kubectl:
    path = find_program("kubectl", CACHE)

    def call(*arguments: str | Path, input: str | None = None) -> "subprocess.CompletedProcess[str]":
        command = [path, f"--kubeconfig={kubeconfig}", f"--cache-dir={tmp_path / 'cache'}", *arguments]
        environment = os.environ | {"HOME": str(tmp_path)}
        return subprocess.run(command, input=input, capture_output=True, text=True, env=environment)

    return call
