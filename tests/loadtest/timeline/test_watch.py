"""What GET /status and the processes of a server tell is read again and again, and a server may tell nothing."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from loadtest.client import Target
from loadtest.timeline import watch as watch_module
from loadtest.timeline.watch import ModelState, ServiceState, Watch, watching
from tests.loadtest.fake_server import FakeServer
from tests.loadtest.test_generate import in_a_thread
from tests.loadtest.timeline.made_up import status


@contextmanager
def _watch(server: FakeServer) -> Iterator[Watch]:
    with httpx.Client(base_url=server.url) as http:
        yield Watch(http)


def test_a_look_tells_replicas_streams_and_memory() -> None:
    with (
        in_a_thread(FakeServer(status=status(streams=3, talkers={"RUNNING": 1, "STARTING": 1}))) as server,
        _watch(server) as watch,
    ):
        sample = watch.look()
        assert watch.has_status
        assert sample.state == ServiceState(
            models={"demo": ModelState(streams=3, stream_limit=8.5, queue=2, expected_wait_s=0.5)},
            replicas={"talker of demo": {"RUNNING": 1, "STARTING": 1}, "codec decoder": {"RUNNING": 1}},
        )
        assert sample.state is not None
        assert sample.state.running("talker of demo") == 1
        assert sample.memory_mib[os.getpid()] > 0
        assert set(sample.memory_mib) == set(watch.processes)
        server.status = status(streams=0, talkers={})
        emptied = watch.look().state
        assert emptied is not None
        assert emptied.running("talker of demo") == 0, "no replica at all"
        server.status = status(streams=0, talkers=None)
        unknown = watch.look().state
        assert unknown is not None
        assert unknown.running("talker of demo") is None, "Serve's controller did not answer"
        server.status = None
        assert watch.look().state is None, "one answer is missing; the next may come"


def test_the_name_of_a_process_does_not_contain_the_method_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = iter(["IDLE", "ingress.call", "ingress", "ingress.call_again"])
    monkeypatch.setattr(watch_module, "resident_mib", lambda _: {7: (next(titles), 1.0)})
    with in_a_thread(FakeServer()) as server, _watch(server) as watch:
        for _ in range(4):
            watch.look()
    assert watch.processes == {7: "ingress"}


@pytest.mark.parametrize("answer", [None, {}, {"models": 3}, {"status": "ok"}])
def test_another_server_has_no_status(answer: Mapping[str, object] | None) -> None:
    with in_a_thread(FakeServer(status=answer)) as server, _watch(server) as watch:
        assert not watch.has_status
        server.status = status(streams=3, talkers={})
        assert watch.look().state is None


def test_samples_are_taken_in_turn_until_the_context_ends() -> None:
    answering = FakeServer(status=status(streams=1, talkers={}))
    with in_a_thread(answering) as server, watching(Target(server.url)) as watch:
        while len(watch.samples) < 2:
            time.sleep(0.01)
    moments = [sample.at_s for sample in watch.samples]
    assert moments == sorted(set(moments))
    assert all(sample.state is not None for sample in watch.samples)
