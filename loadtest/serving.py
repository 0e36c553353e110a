"""Servers to measure where no URL is given: ours, as `qwen-tts serve` starts it, and the peer of loadtest/peer."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import httpx

_READY_WITHIN_S = 600.0
_PEER = Path(__file__).with_name("peer") / "server.py"


@contextmanager
def ours(config: Path | None = None, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start our service with the settings of `config` and yield its URL. Raises click.ClickException."""
    command = [str(Path(sys.executable).with_name("qwen-tts")), "serve"]
    if config is not None:
        command += ["--config", str(config)]
    with _running(command, "/readyz", environment or {}) as url:
        yield url


@contextmanager
def peer(python: Path, checkpoint: Path, dtype: str) -> Iterator[str]:
    """Start the peer with `python`, from an environment with its dependencies; yield its URL.

    Raises click.ClickException.
    """
    if not python.exists():
        raise click.ClickException(f"{python} does not exist; `python -m loadtest.peer.environment` creates it")
    # -E: with our PYTHONPATH its `import qwen_tts` would find ours
    with _running([str(python), "-E", str(_PEER), str(checkpoint), "--dtype", dtype], "/health", {}) as url:
        yield url


@contextmanager
def _running(command: Sequence[str], ready_path: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a server in its own process group, and yield its URL once it is ready. Raises click.ClickException."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env={**os.environ, **environment},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_ready(process, url + ready_path)
        except click.ClickException as error:
            said.seek(0)
            raise click.ClickException(f"{error.message}\n{said.read()[-3000:]}") from None
        else:
            yield url
        finally:
            _end(process)


def _wait_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    click.echo("Starting the server ...", err=True)
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise click.ClickException("the server exited before it was ready:")
        try:
            if httpx.get(url, timeout=5.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise click.ClickException(f"the server was not ready within {_READY_WITHIN_S:.0f} s:")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
