"""Replicas that are killed while streams of every kind run: every listener gets the audio of an undisturbed stream."""

import concurrent.futures
import time
from collections.abc import Callable
from functools import partial

import httpx
import numpy as np
import pytest
import ray

from deployments.replicas.talker import TalkerDeployment
from tests.serve.calls import PATIENCE_S, wait_until
from tests.serve.conftest import CUSTOM, Service
from tests.serve.test_live_text import calling
from tests.serve.test_speech import wait_until_idle

FRAMES = 40
_SLOW_S = 0.1  # for every step: the speech lasts longer than a kill takes
SPOKEN = {"voice": "ryan", "seed": 5, "max_new_tokens": FRAMES, "response_format": "pcm"}
LONG = "The first sentence is here, and it is long enough to be a piece by itself. The second one follows it. " * 3

Stream = Callable[[Service, Callable[[], None]], bytes]  # `begun` is called when the first audio has arrived


def plain(service: Service, begun: Callable[[], None], **fields: object) -> bytes:
    """One text, streamed."""
    body = {"input": "Hello there, how are you?", **SPOKEN, **fields}
    with service.client() as client, client.stream("POST", "/v1/audio/speech", json=body) as response:
        assert response.status_code == 200, response.read()
        pieces = response.iter_raw()
        first = next(pieces)
        begun()
        return first + b"".join(pieces)


def long_text(service: Service, begun: Callable[[], None]) -> bytes:
    """Several pieces at a time."""
    return plain(service, begun, input=LONG, max_new_tokens=None)


def whole_file(service: Service, begun: Callable[[], None]) -> bytes:
    with service.client() as client:
        begun()
        response = client.post("/v1/audio/speech", json={"input": "One whole file.", **SPOKEN, "stream": False})
        assert response.status_code == 200, response.text
        return response.content


def live_text(service: Service, begun: Callable[[], None]) -> bytes:
    """A text that is written while it is spoken, with its end after the loss of the replica."""
    with calling(service) as call:
        call.start(seed=5, max_new_tokens=FRAMES)
        call.write("Hello there, ")
        while not call.pcm:
            call.receive()
        begun()
        call.write("how are you?")
        call.end()
        call.close_code()
        return b"".join(call.pcm)


STREAMS: dict[str, Stream] = {"plain": plain, "whole": whole_file, "live": live_text}


def slow_down(replica: TalkerDeployment) -> None:
    """Let every step of the engine take longer, so that no stream ends before its replica is killed."""
    engine = replica._engine.engine
    step = engine.step

    def slow_step() -> object:
        time.sleep(_SLOW_S)
        return step()

    engine.step = slow_step  # type: ignore[assignment,method-assign]


def kill(service: Service, deployment: str) -> None:
    """Kill the process of every replica of a deployment, as the system does when it runs out of memory."""
    prefix = f"SERVE_REPLICA::{service.app}#{deployment}#"
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(prefix):
            ray.kill(ray.get_actor(actor["name"], namespace="serve"))


def kill_inbox(service: Service) -> None:
    """Kill the actor that holds the live texts. Ray restarts it, without the texts."""
    service.in_replicas("ingress", lambda ingress: ray.kill(ingress._service._inbox, no_restart=False))


def speak_all(service: Service, then: Callable[[], None] = lambda: None) -> dict[str, bytes]:
    """Speak every kind of stream at the same time, call `then` when all have begun, and return their audio."""
    begun: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(len(STREAMS)) as pool:
        futures = {name: pool.submit(stream, service, partial(begun.append, name)) for name, stream in STREAMS.items()}
        wait_until(lambda: len(begun) == len(STREAMS), f"only {begun} have begun")
        then()
        return {name: future.result(timeout=PATIENCE_S) for name, future in futures.items()}


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> dict[str, int]:
    """Return the largest difference of each stream's samples. The lengths must be equal."""
    assert {name: len(pcm) for name, pcm in found.items()} == {name: len(pcm) for name, pcm in expected.items()}
    samples = {
        name: [np.frombuffer(pcm, np.int16).astype(int) for pcm in (found[name], expected[name])] for name in found
    }
    return {name: int(np.abs(one - other).max()) for name, (one, other) in samples.items()}


def test_every_stream_survives_the_death_of_its_replicas(service: Service) -> None:
    talker = f"talker-{CUSTOM}"
    undisturbed = speak_all(service)

    def talker_and_inbox() -> None:
        kill_inbox(service)
        kill(service, talker)

    for fault in (talker_and_inbox, partial(kill, service, "codec-decoder")):
        service.in_replicas(talker, slow_down)
        assert max(differences(speak_all(service, fault), undisturbed).values()) <= 1, fault
        wait_until_idle(service)


def test_an_ingress_that_dies_closes_its_connections_and_frees_every_slot(service: Service) -> None:
    service.in_replicas(f"talker-{CUSTOM}", slow_down)
    with service.client() as client:
        body = {"input": "Hello there, how are you?", **SPOKEN, "max_new_tokens": 2000}
        with client.stream("POST", "/v1/audio/speech", json=body) as response:
            pieces = response.iter_raw()
            next(pieces)
            kill(service, "ingress")
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
    wait_until_idle(service)
    kill(service, f"talker-{CUSTOM}")  # it is slow
    with service.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, "no other ingress has come")
