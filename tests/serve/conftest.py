"""One Ray per test session, and on it one service with a custom-voice and a voice-design model."""

import functools
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.app import APP_NAME, build_app
from deployments.messages import Load
from deployments.settings import AppArgs, CodecDecoderArgs, IngressArgs, ModelArgs, TalkerArgs
from qwen_tts.seeded import SHAPES, write_checkpoint

CUSTOM, DESIGN = "tiny-custom", "tiny-design"
SLOTS = 4


@dataclass(frozen=True)
class Service:
    """A running application: its address, and how many slots its deployments have in use."""

    url: str
    app: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)

    def load(self, deployment: str) -> Load:
        load: Load = _handle(deployment, self.app).load.remote().result(timeout_s=10)
        return load


@functools.cache
def _handle(deployment: str, app: str) -> DeploymentHandle[Any]:
    return serve.get_deployment_handle(deployment, app)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(directory / CUSTOM, SHAPES["small"], "custom_voice")
    write_checkpoint(directory / DESIGN, SHAPES["small"], "voice_design")
    return directory / CUSTOM, directory / DESIGN


@pytest.fixture(scope="session")
def ray_port() -> Iterator[int]:
    """A Ray of our own with Serve on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


@pytest.fixture(scope="session")
def service(ray_port: int, checkpoints: tuple[Path, Path]) -> Service:
    custom, design = checkpoints
    args = AppArgs(
        models=(ModelArgs(name=CUSTOM, checkpoint=str(custom)), ModelArgs(name=DESIGN, checkpoint=str(design))),
        talker=TalkerArgs(slots=SLOTS, threads=1, graceful_shutdown_s=1),
        codec_decoder=CodecDecoderArgs(threads=1, graceful_shutdown_s=1),
        ingress=IngressArgs(graceful_shutdown_s=1, max_body_bytes=20_000, body_timeout_s=2),
    )
    serve.run(build_app(args), name=APP_NAME, route_prefix="/")
    return Service(f"http://127.0.0.1:{ray_port}", APP_NAME)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client
