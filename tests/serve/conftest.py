"""One Ray per test session, and on it one service with a model of each type."""

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
from deployments.settings import (
    AppArgs,
    CodecDecoderArgs,
    CodecEncoderArgs,
    IngressArgs,
    ModelArgs,
    ReferenceAudioArgs,
    TalkerArgs,
    VoiceStoreArgs,
)
from deployments.wire.messages import Load
from qwen_tts.config import ModelType
from qwen_tts.seeded import SHAPES, write_checkpoint
from tests.serve.calls import PATIENCE_S, stored

CUSTOM, DESIGN, BASE = "tiny-custom", "tiny-design", "tiny-base"
SLOTS = 4
BODY_PAUSE_S = 4
MAX_BODY_BYTES, MAX_AUDIO_BYTES, MAX_BATCH_AUDIO_BYTES = 2_000_000, 1_400_000, 1_000_000


@dataclass(frozen=True)
class Service:
    """A running application: its address, and how many slots its deployments have in use."""

    url: str
    app: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    def load(self, deployment: str) -> Load:
        load: Load = _handle(deployment, self.app).load.remote().result(timeout_s=PATIENCE_S)
        return load


@functools.cache
def _handle(deployment: str, app: str) -> DeploymentHandle[Any]:
    return serve.get_deployment_handle(deployment, app)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("checkpoints")
    types: dict[str, ModelType] = {CUSTOM: "custom_voice", DESIGN: "voice_design", BASE: "base"}
    for name, model_type in types.items():
        write_checkpoint(directory / name, SHAPES["small"], model_type)
    return {name: directory / name for name in types}


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Path]:
    """A Ray of our own; its directory."""
    context: Any = ray.init(
        address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    yield Path(context.address_info["session_dir"])
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_port(ray_session: Path) -> Iterator[int]:
    """Serve on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps its voices."""
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="session")
def service(ray_port: int, checkpoints: dict[str, Path], voices: Path) -> Service:
    args = AppArgs(
        models=tuple(ModelArgs(name=name, checkpoint=str(path)) for name, path in checkpoints.items()),
        # All slots are used on the slowest machine, too.
        talker=TalkerArgs(compile=False, slots=SLOTS, threads=1, graceful_shutdown_s=1, keep_pace=False),
        codec_decoder=CodecDecoderArgs(threads=1, graceful_shutdown_s=1),
        codec_encoder=CodecEncoderArgs(threads=1, graceful_shutdown_s=1),
        ingress=IngressArgs(
            graceful_shutdown_s=1,
            max_body_bytes=MAX_BODY_BYTES,
            max_bytes_under_way=6 * MAX_BODY_BYTES,
            body_pause_s=BODY_PAUSE_S,
            max_batch_audio_bytes=MAX_BATCH_AUDIO_BYTES,
        ),
        voices=VoiceStoreArgs(url=str(voices), aliases={"Alloy": "ryan"}),
        reference_audio=ReferenceAudioArgs(max_bytes=MAX_AUDIO_BYTES),
    )
    serve.run(build_app(args), name=APP_NAME, route_prefix="/")
    return Service(f"http://127.0.0.1:{ray_port}", APP_NAME)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def empty_library(client: httpx.Client) -> Iterator[None]:
    """A test that finds no stored voice and leaves none."""
    yield
    for name in stored(client):
        assert client.delete(f"/v1/audio/voices/{name}").status_code == 200
