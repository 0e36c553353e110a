"""One Ray per test session, and on it one service with a model of each type."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import ray
from ray import serve

from deployments.app import APP_NAME, build_app
from deployments.replicas.codec_decoder import CodecDecoderDeployment
from deployments.replicas.talker import TalkerDeployment
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
from qwen_tts.config import ModelType
from qwen_tts.seeded import SHAPES, write_checkpoint
from tests.serve.calls import PATIENCE_S, stored

Result = TypeVar("Result")
CUSTOM, DESIGN, BASE = "tiny-custom", "tiny-design", "tiny-base"
SLOTS = 4
BODY_PAUSE_S = 4
MAX_BODY_BYTES, MAX_AUDIO_BYTES, MAX_BATCH_AUDIO_BYTES = 2_000_000, 1_400_000, 1_000_000


@dataclass(frozen=True)
class Load:
    """The number of slots in use, and of requests that wait for a slot."""

    used: int
    waiting: int


@dataclass(frozen=True)
class Service:
    """A running application: its address, and calls into the replicas of its deployments."""

    url: str
    app: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    def load(self, deployment: str) -> Load:
        """Return the load of all replicas together."""
        loads = self.in_replicas(deployment, _load)
        return Load(sum(load.used for load in loads), sum(load.waiting for load in loads))

    def replicas(self, deployment: str = "") -> set[str]:
        """Return the names of the Ray actors of all replicas, or of those of one deployment (`{name}#`)."""
        names = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
        return {name for name in names if name.startswith(f"SERVE_REPLICA::{self.app}#{deployment}")}

    def in_replicas(self, deployment: str, function: Callable[[Any], Result]) -> list[Result]:
        """Call `function` in every replica of a deployment, with the instance of its class."""
        names = self.replicas(f"{deployment}#")
        actors: list[Any] = [ray.get_actor(name, namespace="serve") for name in names]
        assert actors, f"no replica of {deployment}"
        results: list[Result] = ray.get(
            [actor.__ray_call__.remote(_on_instance, function) for actor in actors], timeout=PATIENCE_S
        )
        return results


def _on_instance(actor: Any, function: Callable[[Any], Result]) -> Result:
    return function(actor._replica_impl._user_callable_wrapper.user_callable)


def _load(replica: TalkerDeployment | CodecDecoderDeployment) -> Load:
    if isinstance(replica, TalkerDeployment):
        engine = replica._engine.engine
        return Load(engine.running, engine.waiting)
    decoders = set(replica._decoders.values())
    return Load(sum(decoder._state.used for decoder in decoders), sum(decoder.waiting for decoder in decoders))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("checkpoints")
    types: dict[str, ModelType] = {CUSTOM: "custom_voice", DESIGN: "voice_design", BASE: "base"}
    for name, model_type in types.items():
        write_checkpoint(directory / name, SHAPES["small"], model_type)
    return {name: directory / name for name in types}


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Path]:
    """Start Ray for these tests. Yield its directory."""
    context: Any = ray.init(
        address="local", num_cpus=16, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    yield Path(context.address_info["session_dir"])
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_port(ray_session: Path) -> Iterator[int]:
    """Start Serve on a free port. Yield the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory in which the service stores its voices."""
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
            max_wait_s=60,  # on the slowest machine, too
            live_text_timeout_s=600,  # longer than any work of a test during a pause of a text
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
    """Delete the stored voices after a test, so that the next one finds none."""
    yield
    for name in stored(client):
        assert client.delete(f"/v1/audio/voices/{name}").status_code == 200
