"""Full queues, models that are not there yet, replicas that die."""

import concurrent.futures
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import ray
from ray import serve

from deployments.app import build_app
from deployments.settings import AppArgs, CodecDecoderArgs, IngressArgs, ModelArgs, TalkerArgs
from tests.audio_files import same_samples
from tests.serve.conftest import CUSTOM, Service

APP = "small-queue"
MODEL = "one-slot"


@pytest.fixture(scope="module")
def one_slot(ray_port: int, checkpoints: dict[str, Path]) -> Iterator[Service]:
    """A service with one slot and room for one waiting request. Yielded before it has loaded."""
    args = AppArgs(
        models=(ModelArgs(name=MODEL, checkpoint=str(checkpoints[CUSTOM]), type="custom_voice"),),
        talker=TalkerArgs(compile=False, slots=1, max_waiting=1, threads=1, graceful_shutdown_s=1),
        codec_decoder=CodecDecoderArgs(threads=1, graceful_shutdown_s=1),
        ingress=IngressArgs(graceful_shutdown_s=1),
    )
    target = serve.RunTarget(target=build_app(args), name=APP, route_prefix="/small")
    serve.run_many([target], wait_for_applications_running=False)
    yield Service(f"http://127.0.0.1:{ray_port}/small", APP)
    serve.delete(APP)


def speak(service: Service, frames: int) -> httpx.Response:
    body = {"input": "Hello there, how are you?", "voice": "ryan", "seed": 1, "max_new_tokens": frames}
    with service.client() as client:
        return client.post("/v1/audio/speech", json=body | {"response_format": "pcm"})


def wait_ready(service: Service) -> list[httpx.Response]:
    """Answers of /readyz up to the first 200."""
    answers: list[httpx.Response] = []
    deadline = time.monotonic() + 60
    with service.client() as client:
        while not answers or answers[-1].status_code != 200:
            assert time.monotonic() < deadline, answers[-1].text
            answers.append(client.get("/readyz"))
            time.sleep(0.05)
    return answers


def test_loading_answers_503_and_then_speaks(one_slot: Service) -> None:
    not_ready = [answer for answer in wait_ready(one_slot) if answer.headers["content-type"] == "application/json"][:-1]
    assert not_ready, "the edge came up after the models"
    for answer in not_ready:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert answer.headers["retry-after"]
    assert speak(one_slot, 2).status_code == 200


def test_overload_is_refused_before_any_work(one_slot: Service) -> None:
    wait_ready(one_slot)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: speak(one_slot, 150), range(8)))
    spoken = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(spoken) >= 2, "one slot and one place in the queue"
    assert len(refused) >= 4
    assert len(spoken) + len(refused) == 8
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    for answer in spoken:
        assert same_samples(answer.content, spoken[0].content), "the same request gives the same audio under load"
    assert speak(one_slot, 2).status_code == 200


def test_a_client_that_leaves_the_queue_makes_room(one_slot: Service) -> None:
    wait_ready(one_slot)
    body = {"input": "Hello there. " * 20, "voice": "ryan", "seed": 7, "max_new_tokens": 2000}
    with one_slot.client() as client, client.stream("POST", "/v1/audio/speech", json=body) as response:
        pieces = response.iter_raw()
        next(pieces)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/audio/speech", json=body, timeout=0.5)
        deadline = time.monotonic() + 5
        while (load := one_slot.load(f"talker-{MODEL}")).waiting:
            assert time.monotonic() < deadline
        assert load.used == 1, "the stream that was running still runs"


def test_a_talker_that_dies_cuts_its_streams_and_is_replaced(one_slot: Service) -> None:
    wait_ready(one_slot)
    body = {
        "input": "Hello there, how are you?",
        "voice": "ryan",
        "max_new_tokens": 1000,
        "seed": 7,
        "response_format": "pcm",
    }
    with one_slot.client() as client, client.stream("POST", "/v1/audio/speech", json=body) as response:
        pieces = response.iter_raw()
        next(pieces)
        kill_talker()
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    speaks_again(one_slot)
    with (
        one_slot.client() as client,
        client.stream("POST", "/v1/audio/speech", json=body | {"stream_format": "sse"}) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        kill_talker()
        *_, last = (json.loads(line.removeprefix("data: ")) for line in lines if line)
    assert (last["type"], last["error"]["code"]) == ("speech.audio.error", "replica_failed")
    speaks_again(one_slot)
    assert one_slot.load("codec-decoder").used == 0


def speaks_again(one_slot: Service) -> None:
    deadline = time.monotonic() + 60
    while speak(one_slot, 2).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def kill_talker() -> None:
    name = next(
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if f"{APP}#talker-{MODEL}" in actor["name"]
    )
    ray.kill(ray.get_actor(name, namespace="serve"))
