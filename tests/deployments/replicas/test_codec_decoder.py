"""The codec decoder's deployment without Serve: when it calls a talker, what it measures, and when it is unhealthy."""

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from deployments import metrics
from deployments.errors import Unavailable, refusal_of
from deployments.replicas.codec_decoder import CodecDecoderDeployment
from deployments.settings import CodecDecoderArgs, ModelArgs, TracingArgs
from deployments.wire.heartbeat import Heartbeat
from deployments.wire.messages import AudioChunk, FrameChunk, Usage
from qwen_tts.errors import EngineStopped, InvalidRequest, Overloaded
from qwen_tts.request import ClonedVoice, SpeechRequest
from qwen_tts.voice import VoicePrompt
from tests.deployments.replicas.conftest import Leaving
from tests.deployments.replicas.waiting import PATIENCE_S, until
from tests.qwen_tts.engine.decoding import FRAME_SAMPLES, decode, load_decoder, random_codes
from tests.qwen_tts.tiny import TINY, custom

MODEL = "tiny"
USAGE = Usage(1, 0, 5)
REQUEST = custom()


class FrameStream:
    """What a talker sends of one stream."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[FrameChunk | Exception] = asyncio.Queue()
        self.cancelled = False

    def send(self, codes: NDArray[np.int16], *, last: bool = False) -> None:
        self.chunks.put_nowait(FrameChunk(codes, "length" if last else None, USAGE if last else None))
        if last:
            self.chunks.put_nowait(StopAsyncIteration())

    def __aiter__(self) -> AsyncIterator[FrameChunk]:
        return self

    async def __anext__(self) -> FrameChunk:
        found = await self.chunks.get()
        if isinstance(found, Exception):
            raise found
        return found

    def cancel(self) -> None:
        self.cancelled = True


class Talker:
    """The handle of a talker: a stream for every call."""

    def __init__(self) -> None:
        self.streams: list[FrameStream] = []
        self.frames: list[NDArray[np.int16] | None] = []  # that existed when a stream was opened
        self.generate = self
        self.readies = 0
        self.ready = SimpleNamespace(remote=self._ready)

    def _ready(self) -> None:
        self.readies += 1

    def options(self, *, stream: bool) -> "Talker":
        assert stream
        return self

    def remote(self, request: SpeechRequest, rest: None, frames: NDArray[np.int16] | None, caller: None) -> FrameStream:
        self.frames.append(frames)
        self.streams.append(FrameStream())
        return self.streams[-1]


@dataclass
class Metrics:
    """Takes the place of ray.serve.metrics: what every metric was given, by its name."""

    values: dict[str, list[float]] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)

    def Histogram(self, name: str, *_: object) -> "Metric":
        return Metric(self, name)

    Gauge = Counter = Histogram


@dataclass
class Metric:
    metrics: Metrics
    name: str

    def _note(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        self.metrics.values.setdefault(self.name.removeprefix("qwen_tts_"), []).append(value)
        if tags is not None and "finish_reason" in tags:
            self.metrics.ends.append(tags["finish_reason"])

    set = inc = observe = _note


@dataclass
class Clock:
    now_s: float = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Measure a deployment outside Serve, which has no name."""
    measured = Metrics()
    monkeypatch.setattr(metrics, "metrics", measured)
    return measured


class Starting:
    """A call to a deployment that has no replica until `replica` is set."""

    def __init__(self) -> None:
        self.replica = asyncio.Event()
        self.cancelled = False

    def __await__(self) -> Generator[Any, None, Any]:
        return self.replica.wait().__await__()

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def talker() -> Talker:
    return Talker()


@pytest.fixture
def deployment(base: Path, talker: Talker, measured: Metrics) -> CodecDecoderDeployment:
    """One slot."""
    return CodecDecoderDeployment(
        (ModelArgs(name=MODEL, checkpoint=str(base), type="base"),),
        {MODEL: cast("DeploymentHandle[Any]", talker)},
        CodecDecoderArgs(slots=1, threads=1),
        TracingArgs(),
    )


def listen(
    deployment: CodecDecoderDeployment, request: SpeechRequest = REQUEST, frames: NDArray[np.int16] | None = None
) -> asyncio.Task[list[AudioChunk]]:
    async def listening() -> list[AudioChunk]:
        chunks = deployment.synthesize(MODEL, request, frames=frames)
        return [chunk async for chunk in chunks if not isinstance(chunk, Heartbeat)]

    return asyncio.create_task(listening())


def codes(frames: int, seed: int = 0) -> NDArray[np.int16]:
    return random_codes(frames, seed=seed)[0].short().numpy()


async def test_a_request_that_waits_or_is_refused_costs_the_talker_nothing(
    deployment: CodecDecoderDeployment, talker: Talker, measured: Metrics
) -> None:
    running = listen(deployment)
    await until(lambda: len(talker.streams) == 1)
    waiting = listen(deployment)
    await until(lambda: measured.values["decoder_requests_waiting"][-1] == 1)
    with pytest.raises(Overloaded):
        await listen(deployment)
    assert len(talker.streams) == 1
    talker.streams[0].send(codes(2))
    talker.streams[0].send(codes(3), last=True)
    chunks = await asyncio.wait_for(running, PATIENCE_S)
    assert [len(chunk.pcm) for chunk in chunks] == [2 * 2 * FRAME_SAMPLES, 3 * 2 * FRAME_SAMPLES]
    assert [(chunk.finish_reason, chunk.usage) for chunk in chunks] == [(None, None), ("length", USAGE)]
    await until(lambda: len(talker.streams) == 2)
    talker.streams[1].send(codes(1), last=True)
    assert len(await asyncio.wait_for(waiting, PATIENCE_S)) == 1
    assert measured.ends == ["refused", "length", "length"]
    assert measured.values["decoder_slots_in_use"][-1] == measured.values["decoder_requests_waiting"][-1] == 0
    assert max(measured.values["decoder_slots_in_use"]) == 1


async def test_a_request_cancelled_while_it_waits_never_reaches_the_talker(
    deployment: CodecDecoderDeployment, talker: Talker, measured: Metrics
) -> None:
    running = listen(deployment)
    await until(lambda: len(talker.streams) == 1)
    waiting = listen(deployment)
    await until(lambda: measured.values["decoder_requests_waiting"][-1] == 1)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert measured.values["decoder_requests_waiting"][-1] == 0
    talker.streams[0].send(codes(1), last=True)
    await asyncio.wait_for(running, PATIENCE_S)
    assert len(talker.streams) == 1
    assert measured.ends == ["cancelled", "length"]


async def test_a_cancelled_stream_cancels_its_talker_and_frees_the_slot(
    deployment: CodecDecoderDeployment, talker: Talker, measured: Metrics
) -> None:
    running = listen(deployment)
    await until(lambda: len(talker.streams) == 1)
    running.cancel()
    await asyncio.wait([running])
    assert talker.streams[0].cancelled
    again = listen(deployment)
    await until(lambda: len(talker.streams) == 2)
    talker.streams[1].send(codes(1), last=True)
    assert len(await asyncio.wait_for(again, PATIENCE_S)) == 1


async def test_what_the_talker_refuses_is_refused_and_frees_the_slot(
    deployment: CodecDecoderDeployment, talker: Talker, measured: Metrics
) -> None:
    for _ in range(4):
        refused = listen(deployment)
        await until(lambda: bool(talker.streams))
        talker.streams.pop().chunks.put_nowait(InvalidRequest("no such speaker", "voice"))
        with pytest.raises(InvalidRequest):
            await asyncio.wait_for(refused, PATIENCE_S)
    deployment.check_health()
    assert measured.ends == ["refused"] * 4
    assert measured.values["decoder_slots_in_use"][-1] == 0
    assert "ttfa_ms" not in measured.values


async def test_a_cloned_voice_goes_on_from_its_reference(
    deployment: CodecDecoderDeployment, talker: Talker, base: Path
) -> None:
    reference, spoken = random_codes(12, seed=1), random_codes(4, seed=2)
    embedding = np.zeros(TINY.hidden, np.float32)
    voice = ClonedVoice(VoicePrompt(embedding, reference[0].short().numpy(), "Words."))
    stream = listen(deployment, SpeechRequest("Hello.", voice, seed=1))
    await until(lambda: len(talker.streams) == 1)
    talker.streams[0].send(spoken[0].short().numpy(), last=True)
    (chunk,) = await asyncio.wait_for(stream, PATIENCE_S)
    whole = decode(load_decoder(base), torch.cat((reference, spoken), dim=1))[0]
    expected = whole[-4 * FRAME_SAMPLES :].numpy()
    heard = np.frombuffer(chunk.pcm, "<i2") / 32767
    np.testing.assert_allclose(heard, expected, atol=2 / 32767)


async def test_what_is_measured_of_a_stream(
    deployment: CodecDecoderDeployment, talker: Talker, measured: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that the test sets: when requested, when each chunk leaves."""
    clock = Clock()
    for module in ("codec_decoder", "stream_decoder", "metrics"):
        monkeypatch.setattr(f"deployments.replicas.{module}.time", clock)
    stream = deployment._speak(MODEL, REQUEST, None, None)
    for now_s, frames in ((100.5, 5), (100.6, 5), (101.6, 1)):
        first = asyncio.ensure_future(anext(stream))
        await until(lambda: len(talker.streams) == 1)
        clock.now_s = now_s
        talker.streams[0].send(codes(frames), last=frames == 1)
        await asyncio.wait_for(first, PATIENCE_S)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    found = {name: pytest.approx(values) for name, values in measured.values.items()}
    assert found["ttfa_ms"] == [500.0]
    assert found["chunk_gap_ms"] == [100.0, 1000.0]
    assert found["headroom_ms"] == [300.0, 0.0], "5 frames less what was played; then none for 300 ms"
    assert found["underruns"] == [1.0]
    assert found["underrun_ms"] == [300.0]
    assert found["audio_s"] == [0.4, 0.4, 0.08]
    assert found["rtf"] == [1.6 / 0.88]
    assert measured.ends == ["length"]


async def test_a_piece_of_a_longer_text_has_no_time_to_first_audio(
    deployment: CodecDecoderDeployment, talker: Talker, measured: Metrics
) -> None:
    stream = listen(deployment, replace(REQUEST, ahead_s=3.0))
    await until(lambda: len(talker.streams) == 1)
    talker.streams[0].send(codes(2), last=True)
    await asyncio.wait_for(stream, PATIENCE_S)
    assert "ttfa_ms" not in measured.values
    assert measured.values["audio_s"] == [pytest.approx(0.16)]


async def test_a_decoder_that_only_fails_leaves(
    deployment: CodecDecoderDeployment, talker: Talker, monkeypatch: pytest.MonkeyPatch, leaving: Leaving
) -> None:
    (decoder,) = deployment._decoders.values()

    def fail(*_: object) -> Tensor:
        raise RuntimeError("device lost")

    monkeypatch.setattr(decoder._decoder, "forward", fail)
    deployment.check_health()
    stream = listen(deployment)
    await until(lambda: bool(talker.streams))
    talker.streams.pop().send(codes(1))
    with pytest.raises(EngineStopped):
        await asyncio.wait_for(stream, PATIENCE_S)
    with pytest.raises(EngineStopped):
        deployment.check_health()
    assert leaving.count == 1


async def test_a_stream_goes_on_when_its_talker_is_lost_or_its_decoder_was(
    deployment: CodecDecoderDeployment, talker: Talker, measured: Metrics
) -> None:
    """A decoder that gets the frames of another one sends the samples that the other one would have sent."""
    made = codes(9)
    running = listen(deployment)
    await until(lambda: len(talker.streams) == 1)
    talker.streams[0].send(made[:5])
    talker.streams[0].chunks.put_nowait(EngineStopped("the talker has died"))
    await until(lambda: len(talker.streams) == 2)
    talker.streams[1].send(made[5:], last=True)
    whole = await asyncio.wait_for(running, PATIENCE_S)
    assert [len(chunk.pcm) for chunk in whole] == [5 * 2 * FRAME_SAMPLES, 4 * 2 * FRAME_SAMPLES]
    assert np.array_equal(np.concatenate([chunk.codes for chunk in whole if chunk.codes is not None]), made)
    second = listen(deployment, frames=made[:5])
    await until(lambda: len(talker.streams) == 3)
    talker.streams[2].send(made[5:], last=True)
    (rest,) = await asyncio.wait_for(second, PATIENCE_S)
    ends = [np.frombuffer(chunk.pcm, np.int16).astype(int) for chunk in (whole[1], rest)]
    assert np.abs(ends[0] - ends[1]).max() <= 1, "the samples are not those of an undisturbed stream"
    assert [None if frames is None else len(frames) for frames in talker.frames] == [None, 5, 5]
    assert len(measured.values["streams_resumed"]) == 1


async def test_a_model_without_replicas_starts_one_and_speaks(base: Path, measured: Metrics) -> None:
    talker, starting = Talker(), Starting()
    deployment = on_demand(base, talker, starting, start_wait_s=PATIENCE_S)
    stream = listen(deployment)
    await asyncio.sleep(0)
    assert not talker.streams
    starting.replica.set()
    await until(lambda: len(talker.streams) == 1)
    talker.streams[0].send(codes(1), last=True)
    assert len(await asyncio.wait_for(stream, PATIENCE_S)) == 1


async def test_a_request_does_not_wait_longer_for_a_replica_than_the_model_allows(
    base: Path, measured: Metrics
) -> None:
    talker, starting = Talker(), Starting()
    deployment = on_demand(base, talker, starting, start_wait_s=0.001)
    with pytest.raises(Unavailable) as caught:
        await asyncio.wait_for(listen(deployment), PATIENCE_S)
    refusal = refusal_of(caught.value)
    assert (refusal.status, refusal.code) == (503, "model_starting")
    assert refusal.retry_after_s
    assert starting.cancelled
    assert not talker.streams


async def test_models_without_replicas_are_described_without_starting_them(base: Path, measured: Metrics) -> None:
    deployment = on_demand(base, Talker(), Starting(), start_wait_s=1)
    (card,) = await asyncio.wait_for(deployment.describe(), PATIENCE_S)
    assert (card.name, card.model_type) == (MODEL, "base")


def test_talkers_are_found_before_the_first_stream(
    deployment: CodecDecoderDeployment, talker: Talker, base: Path, measured: Metrics
) -> None:
    """Serve needs the head node for the first call to a deployment. A talker without replicas must not start."""
    assert talker.readies == 1
    starting = SimpleNamespace(remote=lambda: pytest.fail("the call would start a replica"))
    model = ModelArgs(name=MODEL, checkpoint=str(base), type="base", start_wait_s=1)
    handle: Any = SimpleNamespace(ready=starting)
    CodecDecoderDeployment((model,), {MODEL: handle}, CodecDecoderArgs(slots=1, threads=1), TracingArgs())


def on_demand(base: Path, talker: Talker, starting: Starting, *, start_wait_s: float) -> CodecDecoderDeployment:
    """A model whose talker may have no replica."""
    handle: Any = talker
    handle.ready = SimpleNamespace(remote=lambda: starting)
    model = ModelArgs(name=MODEL, checkpoint=str(base), type="base", start_wait_s=start_wait_s)
    return CodecDecoderDeployment((model,), {MODEL: handle}, CodecDecoderArgs(slots=1, threads=1), TracingArgs())


async def test_the_load_counts_streams_and_those_that_wait(
    deployment: CodecDecoderDeployment, talker: Talker, measured: Metrics
) -> None:
    assert deployment.record_autoscaling_stats().items() >= {"capacity": 1, "running": 0, "waiting": 0}.items()
    streams = [listen(deployment), listen(deployment)]
    await until(lambda: len(talker.streams) == 1)
    await until(lambda: measured.values["decoder_requests_waiting"][-1] == 1)
    assert deployment.record_autoscaling_stats().items() >= {"capacity": 1, "running": 1, "waiting": 1}.items()
    for stream in streams:
        stream.cancel()
    await asyncio.wait(streams)
