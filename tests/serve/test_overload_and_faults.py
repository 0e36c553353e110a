"""Full queues, models that are still loading, replicas that die, replicas that an update replaces."""

import concurrent.futures
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
import pytest
from ray import serve
from torch import Tensor

from deployments.app import build_app
from deployments.replicas.talker import TalkerDeployment
from deployments.settings import AppArgs, CodecDecoderArgs, IngressArgs, ModelArgs, TalkerArgs
from qwen_tts.engine.passes import PlainPasses
from qwen_tts.engine.sequence import Sequence
from tests.audio_files import same_samples
from tests.serve.calls import FRAME_BYTES, PATIENCE_S, posted, wait_until
from tests.serve.conftest import CUSTOM, Service
from tests.serve.test_live_text import slot_in_use

APP = "small-queue"
MODEL = "one-slot"
POISON = 666


@dataclass(frozen=True)
class Gate:
    """A file of a checkpoint whose reader waits until the gate is opened."""

    file: Path

    @classmethod
    def before(cls, file: Path) -> "Gate":
        file.rename(file.with_suffix(".behind"))
        os.mkfifo(file)
        return cls(file)

    def open(self) -> None:
        """Let the present reader and all later ones continue."""
        behind = self.file.with_suffix(".behind")
        if behind.exists():
            content = behind.read_bytes()
            with self.file.open("wb") as waiting:  # returns when a reader opens the file
                behind.rename(self.file)
                waiting.write(content)


@pytest.fixture(scope="module")
def gate(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Close a gate before the talker of a separate checkpoint. No other reader opens this file."""
    directory = tmp_path_factory.mktemp("gated") / CUSTOM
    shutil.copytree(checkpoints[CUSTOM], directory)
    return Gate.before(directory / "merges.txt")


@pytest.fixture(scope="module")
def settings(gate: Gate) -> AppArgs:
    """One slot and room for one waiting request."""
    return AppArgs(
        models=(ModelArgs(name=MODEL, checkpoint=str(gate.file.parent), type="custom_voice"),),
        talker=TalkerArgs(compile=False, slots=1, max_waiting=1, threads=1),
        codec_decoder=CodecDecoderArgs(threads=1),
        ingress=IngressArgs(live_text_timeout_s=600, max_wait_s=60),
    )


@pytest.fixture(scope="module")
def loading(ray_port: int, gate: Gate, settings: AppArgs) -> Iterator[Service]:
    """A service whose talker is not ready before the gate is opened."""
    target = serve.RunTarget(target=build_app(settings), name=APP, route_prefix="/small")
    serve.run_many([target], wait_for_applications_running=False)
    yield Service(f"http://127.0.0.1:{ray_port}/small", APP)
    serve.delete(APP)


@pytest.fixture(scope="module")
def one_slot(loading: Service, gate: Gate) -> Service:
    gate.open()
    with loading.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, "it has not loaded")
    return loading


def speak(service: Service, frames: int, **headers: str) -> httpx.Response:
    body = {"input": "Hello there, how are you?", "voice": "ryan", "seed": 1, "max_new_tokens": frames}
    with service.client() as client:
        return client.post("/v1/audio/speech", json=body | {"response_format": "pcm"}, headers=headers)


def test_loading_answers_503_and_then_speaks(loading: Service, gate: Gate) -> None:
    with loading.client() as client:

        def answers_itself() -> bool:
            return client.get("/readyz").headers["content-type"] == "application/json"

        wait_until(answers_itself, "the edge has not come up")
        not_ready = client.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["error"]["code"]) == (503, "not_ready")
        assert not_ready.headers["retry-after"]
        gate.open()
        wait_until(lambda: client.get("/readyz").status_code == 200, "it has not loaded")
    assert speak(loading, 2).status_code == 200


def test_overload_is_refused_before_any_work(one_slot: Service) -> None:
    alone = speak(one_slot, 20)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        with slot_in_use(one_slot):
            now = {"X-Max-Wait-Ms": "0"}
            answers = concurrent.futures.as_completed([pool.submit(speak, one_slot, 20, **now) for _ in range(8)])
            refused = [next(answers).result() for _ in range(7)]
        spoken = next(answers).result()
    for answer in refused:
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert spoken.status_code == 200, "a request that found the place in the queue was refused"
    assert same_samples(spoken.content, alone.content), "the audio of a request changes under load"
    assert speak(one_slot, 2).status_code == 200


def test_a_client_that_leaves_the_queue_makes_room(one_slot: Service) -> None:
    body = {"input": "Hello there.", "voice": "ryan", "seed": 7, "max_new_tokens": 20}

    def waiting() -> int:
        return one_slot.load(f"talker-{MODEL}").waiting

    with slot_in_use(one_slot):
        with posted(f"{one_slot.url}/v1/audio/speech", body):
            wait_until(lambda: waiting() == 1, "the request has not come to the queue")
        wait_until(lambda: waiting() == 0, "the request is still in the queue")
        assert one_slot.load(f"talker-{MODEL}").used == 1, "the running stream has lost its slot"


def test_a_poisoned_request_fails_alone_and_a_talker_that_only_fails_leaves(one_slot: Service) -> None:
    before = one_slot.in_replicas(f"talker-{MODEL}", process)
    one_slot.in_replicas(f"talker-{MODEL}", poison)
    with one_slot.client() as client:
        answer = client.post("/v1/audio/speech", json={"input": "Hello.", "voice": "ryan", "seed": POISON})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "request_failed")
    assert speak(one_slot, 2).status_code == 200
    assert one_slot.in_replicas(f"talker-{MODEL}", process) == before, "a request that fails costs a replica"
    one_slot.in_replicas(f"talker-{MODEL}", lose_device)
    wait_until(lambda: speak(one_slot, 2).status_code == 200, "no other replica has come")
    assert one_slot.in_replicas(f"talker-{MODEL}", process) != before, "a replica that can compute nothing has stayed"


def process(replica: object) -> int:
    return os.getpid()


def poison(replica: TalkerDeployment) -> None:
    """Let the first frame of some requests raise."""
    runner = replica._engine.engine._runner
    draw = runner._draw

    def poisoned(sequences: tuple[Sequence, ...]) -> Tensor:
        if any(sequence.request.seed == POISON for sequence in sequences):
            raise ArithmeticError
        return draw(sequences)

    runner._draw = poisoned  # type: ignore[method-assign]


def lose_device(replica: TalkerDeployment) -> None:
    """Let every computation fail from now on, as after the loss of a GPU."""

    def fail(*_: object) -> Tensor:
        raise RuntimeError("device lost")

    passes = cast("PlainPasses", replica._engine.engine._runner._passes)
    passes.decode = passes.read_prompt = fail  # type: ignore[assignment,method-assign]


def test_an_update_cuts_no_stream_and_refuses_no_request(one_slot: Service, settings: AppArgs) -> None:
    """Two callers go on while all replicas are replaced by replicas with other settings."""
    before, stop, answered = one_slot.replicas(), threading.Event(), threading.Semaphore(0)

    def caller() -> set[tuple[int, int]]:
        answers = set()
        while not stop.is_set():
            answer = speak(one_slot, 40)
            answers.add((answer.status_code, len(answer.content)))
            answered.release()
        return answers

    talker = settings.talker.model_copy(update={"chunk_schedule": (2, 4)})
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(caller) for _ in range(2)]
        try:
            app = build_app(settings.model_copy(update={"talker": talker}))
            serve.run(app, name=APP, route_prefix="/small")
            wait_until(lambda: not before & one_slot.replicas(), "old replicas have not stopped")
            while answered.acquire(blocking=False):  # earlier answers
                pass
            for _ in callers:
                assert answered.acquire(timeout=PATIENCE_S)
        finally:
            stop.set()
        assert set().union(*(each.result() for each in callers)) == {(200, 40 * FRAME_BYTES)}
