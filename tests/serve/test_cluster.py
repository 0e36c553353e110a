"""Several replicas, deployed with a Serve config: shared stores, changes in place, and talkers that follow the load."""

import concurrent.futures
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from deployments.app import live_options
from deployments.settings import (
    AppArgs,
    AutoscalingArgs,
    CodecDecoderArgs,
    CodecEncoderArgs,
    IngressArgs,
    ModelArgs,
    TalkerArgs,
    VoiceStoreArgs,
)
from tests.recordings import wav
from tests.serve.calls import FRAME_BYTES, PATIENCE_S, wait_until
from tests.serve.conftest import BASE, CUSTOM, Service

APP = "cluster"


@pytest.fixture(scope="module")
def settings(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AppArgs:
    """Two ingresses, two codec encoders, one or two talkers of a Base model. Another model starts when it is used."""
    scaling = AutoscalingArgs(
        max_replicas=2,
        upscale_delay_s=0.5,
        downscale_delay_s=1,
    )
    return AppArgs(
        models=(
            ModelArgs(name=BASE, checkpoint=str(checkpoints[BASE]), type="base"),
            ModelArgs(
                name=CUSTOM,
                checkpoint=str(checkpoints[CUSTOM]),
                type="custom_voice",
                talker=TalkerArgs(
                    compile=False, threads=1, autoscaling=AutoscalingArgs(min_replicas=0, max_replicas=1)
                ),
                start_wait_s=PATIENCE_S,
            ),
        ),
        talker=TalkerArgs(compile=False, autoscaling=scaling, slots=4, max_waiting=64, threads=1),
        codec_decoder=CodecDecoderArgs(threads=1, graceful_shutdown_s=1),
        codec_encoder=CodecEncoderArgs(num_replicas=2, threads=1, graceful_shutdown_s=1),
        ingress=IngressArgs(num_replicas=2, graceful_shutdown_s=1, max_wait_s=60),
        voices=VoiceStoreArgs(url=str(tmp_path_factory.mktemp("shared-voices"))),
    )


def deploy(args: AppArgs, live: AppArgs) -> None:
    """Deploy the application of `args` with the live settings of `live`, as `serve deploy` does."""
    options = live_options(live)
    scaling = options[f"talker-{BASE}"]["autoscaling_config"]
    assert isinstance(scaling, dict)
    scaling |= {"metrics_interval_s": 0.5, "look_back_period_s": 2}  # so that the tests do not wait for averages
    application = {
        "name": APP,
        "route_prefix": "/cluster",
        "import_path": "deployments.app:build_app",
        "args": args.model_dump(mode="json", exclude_unset=True),
        "deployments": [{"name": name, **one} for name, one in options.items()],
    }
    client: Any = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}), _blocking=True)


@pytest.fixture(scope="module")
def cluster(ray_port: int, settings: AppArgs) -> Iterator[Service]:
    deploy(settings, settings)
    yield Service(f"http://127.0.0.1:{ray_port}/cluster", APP)
    serve.delete(APP)


def running(deployment: str) -> int:
    states = serve.status().applications[APP].deployments[deployment].replica_states
    return sum(count for state, count in states.items() if state == "RUNNING")


def replicas_with(line: str, deployment: str, ray_session: Path) -> int:
    """Return the number of replicas that have `line` in their access log."""
    logs = (ray_session / "logs" / "serve").glob(f"replica_{APP}_{deployment}_*.log")
    return sum(line in log.read_text() for log in logs)


def upload(client: httpx.Client, name: str, recording: bytes) -> httpx.Response:
    fields = {"name": name, "consent": "given", "ref_text": "Words."}
    return client.post("/v1/audio/voices", data=fields, files={"audio_sample": recording})


def speak(client: httpx.Client, frames: int, **body: object) -> httpx.Response:
    request = {"input": "Hello", "seed": 1, "max_new_tokens": frames, "response_format": "pcm"}
    return client.post("/v1/audio/speech", json=request | body)


def test_a_voice_is_known_everywhere_at_once(cluster: Service, ray_session: Path) -> None:
    """Answers of all replicas show an upload, an overwrite and a delete as soon as it has returned."""
    with cluster.client() as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        for round_ in range(3):
            assert upload(client, "anna", wav("high" if round_ % 2 else "low")).status_code == 200
            for answer in pool.map(lambda _: client.get("/v1/audio/voices/anna"), range(16)):
                assert answer.status_code == 200
            for answer in pool.map(lambda _: speak(client, 2, voice="anna"), range(8)):
                assert (answer.status_code, len(answer.content)) == (200, 2 * FRAME_BYTES)
            assert client.delete("/v1/audio/voices/anna").status_code == 200
            for answer in pool.map(lambda _: speak(client, 2, voice="anna"), range(8)):
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_voice")
            for answer in pool.map(lambda _: client.get("/v1/audio/voices"), range(8)):
                assert answer.json()["uploaded_voices"] == []
        list(pool.map(lambda index: upload(client, f"voice-{index}", wav("low")), range(8)))
    assert replicas_with("POST /cluster/v1/audio/speech 200", "ingress", ray_session) == 2
    assert replicas_with("POST /cluster/v1/audio/speech 404", "ingress", ray_session) == 2
    assert replicas_with("CALL encode OK", "codec-encoder", ray_session) == 2


def test_live_settings_change_without_a_restart(cluster: Service, settings: AppArgs) -> None:
    def limits() -> list[tuple[int, ...]]:
        edges = cluster.in_replicas("ingress", lambda ingress: (ingress._service.limits.live_characters,))
        encoders = cluster.in_replicas("codec-encoder", lambda encoder: (encoder._max_waiting,))
        talkers = cluster.in_replicas(f"talker-{BASE}", lambda talker: (talker._engine.engine._scheduler.max_waiting,))
        return [*edges, *encoders, *talkers]

    before = cluster.replicas()
    changed = settings.model_copy(
        update={
            "talker": settings.talker.model_copy(update={"max_waiting": 63}),
            "codec_encoder": settings.codec_encoder.model_copy(update={"max_waiting": 7}),
            "ingress": settings.ingress.model_copy(update={"max_input_characters": 5}),
            "voices": settings.voices.model_copy(update={"aliases": {"alloy": "anna"}}),
        }
    )
    with cluster.client() as client:
        assert upload(client, "anna", wav("low")).status_code == 200
        assert speak(client, 2, voice="alloy").status_code == 404
        deploy(settings, changed)
        wait_until(lambda: limits() == [(5,)] * 2 + [(7,)] * 2 + [(63,)], "the limits have not changed")
        assert [speak(client, 2, voice="alloy").status_code for _ in range(6)] == [200] * 6
        assert upload(client, "eve", wav("low")).json()["error"]["code"] == "ref_text_too_long"
        deploy(settings, settings)
        wait_until(lambda: limits() == [(4096,)] * 2 + [(64,)] * 3, "the limits have not changed back")
        assert speak(client, 2, voice="alloy").status_code == 404
        assert client.delete("/v1/audio/voices/anna").status_code == 200
    assert cluster.replicas() == before


def test_an_encoder_that_dies_loses_no_upload(cluster: Service) -> None:
    """Uploads are under way until the replica that died has been replaced."""

    def encoders() -> list[str]:
        actors = ray.util.list_named_actors(all_namespaces=True)
        return [actor["name"] for actor in actors if f"{APP}#codec-encoder" in actor["name"]]

    def is_replaced(name: str) -> bool:
        return name not in (names := encoders()) and len(names) == 2 and running("codec-encoder") == 2

    victim, _ = encoders()
    stop, uploaded = threading.Event(), threading.Semaphore(0)

    def uploader(name: str) -> set[int]:
        statuses = set()
        with cluster.client() as client:
            while not stop.is_set():
                statuses.add(upload(client, name, wav("high")).status_code)
                statuses.add(client.delete(f"/v1/audio/voices/{name}").status_code)
                uploaded.release()
        return statuses

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        uploaders = [pool.submit(uploader, f"caller-{index}") for index in range(6)]
        try:
            for _ in range(6):
                assert uploaded.acquire(timeout=PATIENCE_S)
            ray.kill(ray.get_actor(victim, namespace="serve"))
            wait_until(lambda: is_replaced(victim), "no other encoder has come")
        finally:
            stop.set()
        assert set().union(*(each.result() for each in uploaders)) == {200}


def test_talkers_follow_the_load_and_no_request_fails(cluster: Service, ray_session: Path) -> None:
    talker = f"talker-{BASE}"
    embedding = [0.5] * 128
    stop_load, stop = threading.Event(), threading.Event()
    frames = 24
    answered = threading.Semaphore(0)  # answers to the caller that goes on

    def caller(until: threading.Event) -> list[tuple[int, int]]:
        answers = []
        with cluster.client() as client:
            while not until.is_set():
                answer = speak(client, frames, speaker_embedding=embedding)
                answers.append((answer.status_code, len(answer.content)))
                if until is stop:
                    answered.release()
        return answers

    def wait_for(replicas: int) -> None:
        wait_until(lambda: running(talker) == replicas, f"there are not {replicas} talkers")

    def spoke() -> int:
        return replicas_with("CALL generate OK", talker, ray_session)

    wait_for(1)
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        # One caller goes on while replicas start and stop. That caller alone needs no second talker.
        callers = [pool.submit(caller, stop)] + [pool.submit(caller, stop_load) for _ in range(8)]
        try:
            wait_for(2)
            wait_until(lambda: spoke() == 2, "the second talker does not speak")
            stop_load.set()
            wait_for(1)
            while answered.acquire(blocking=False):  # earlier answers
                pass
            for _ in range(3):
                assert answered.acquire(timeout=PATIENCE_S)
        finally:
            stop_load.set()
            stop.set()
        answers = [answer for each in callers for answer in each.result()]
    assert set(answers) == {(200, frames * FRAME_BYTES)}


def test_a_model_without_replicas_is_ready_and_starts_when_it_is_used(cluster: Service) -> None:
    talker = f"talker-{CUSTOM}"
    with cluster.client() as client:
        assert CUSTOM in client.get("/readyz").json()["models"]
        assert running(talker) == 0
        answer = speak(client, 2, model=CUSTOM, voice="ryan")
        assert (answer.status_code, len(answer.content)) == (200, 2 * FRAME_BYTES)
    assert running(talker) == 1
