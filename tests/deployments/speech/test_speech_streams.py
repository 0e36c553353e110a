"""Streams in their places: what happens when a replica is full, and when a place is free again."""

import asyncio
from operator import length_hint

import pytest

from deployments.speech import admission as admission_module
from deployments.speech import speech_streams as streams_module
from deployments.speech.admission import Admission
from deployments.speech.speech_streams import SpeechStreams
from deployments.speech.terms import Terms
from deployments.wire.messages import AudioChunk
from qwen_tts.errors import Overloaded
from qwen_tts.request import CustomVoice, SpeechRequest
from tests.deployments.loaded import ANY, Stream, collected, decoder
from tests.virtual_time import in_virtual_time

virtual = in_virtual_time(admission_module, streams_module)
REQUEST = SpeechRequest("Hello.", CustomVoice("ryan"), "english", seed=1)
TERMS = Terms("interactive", 2.0, b"caller")
FULL = Overloaded("all slots are busy")


class Replica:
    """A decoder that refuses the first `refusals` calls. With `late`, it fails after the first chunk."""

    def __init__(self, refusals: int, *, late: bool = False) -> None:
        self.requests: list[SpeechRequest] = []
        self.admission = Admission()

        def synthesize(model: str, request: SpeechRequest, **_: object) -> Stream:
            self.requests.append(request)
            audio = [AudioChunk(b"\0" * 3840, None), AudioChunk(b"", "stop")]
            if len(self.requests) > refusals:
                return Stream(audio)
            return Stream([audio[0], FULL] if late else [FULL])

        self.streams = SpeechStreams(decoder(synthesize), self.admission, 5.0)

    @property
    def in_use(self) -> int:
        return self.admission._line(ANY.name).in_use


@virtual
async def test_a_full_replica_is_called_again_within_the_time_that_the_request_may_wait() -> None:
    replica = Replica(3)
    async with replica.streams.open(ANY, REQUEST, TERMS) as chunks:
        _, last = await collected(chunks)
        assert replica.in_use == 0, "all audio is made"
    assert last.finish_reason == "stop"
    assert len(replica.requests) == 4


@virtual
async def test_a_replica_that_stays_full_refuses_with_a_time_to_come_back() -> None:
    replica = Replica(1000)
    with pytest.raises(Overloaded, match="try again in") as refused:
        async with replica.streams.open(ANY, REQUEST, TERMS) as chunks:
            await collected(chunks)
    assert refused.value.retry_after_s >= 1
    assert 2 <= len(replica.requests) <= 9
    assert replica.in_use == 0


@virtual
async def test_a_further_piece_gets_the_refusal_of_the_replica() -> None:
    replica = Replica(1000)
    with pytest.raises(Overloaded, match="all slots"):
        async with replica.streams.open(ANY, REQUEST, TERMS, due_s=3.0) as chunks:
            await collected(chunks)
    assert len(replica.requests) > 5


@virtual
async def test_a_stream_that_has_begun_is_not_begun_again() -> None:
    replica = Replica(1, late=True)
    with pytest.raises(Overloaded, match="all slots"):
        async with replica.streams.open(ANY, REQUEST, TERMS) as chunks:
            await collected(chunks)
    assert len(replica.requests) == 1


@virtual
async def test_a_piece_that_waited_for_its_place_is_due_sooner() -> None:
    replica = Replica(0)
    replica.admission._line(ANY.name).limit.limit = 1.0
    ahead = SpeechRequest("Later.", CustomVoice("ryan"), "english", seed=1, ahead_s=30.0)
    async with (
        replica.streams.open(ANY, REQUEST, TERMS),
        replica.streams.open(ANY, ahead, TERMS, due_s=30.0) as chunks,
    ):
        await collected(chunks)
    assert replica.requests[-1].ahead_s == pytest.approx(5.0, abs=0.1)


@virtual
async def test_a_stream_that_is_read_slowly_does_not_look_slow() -> None:
    """The budget of audio holds streams back in this way."""

    def synthesize(*_: object, **__: object) -> Stream:
        return Stream([*[AudioChunk(b"\0" * 3840, None)] * 30, AudioChunk(b"", "stop")])

    admission = Admission()
    limit = admission._line(ANY.name).limit
    async with SpeechStreams(decoder(synthesize), admission, 5.0).open(ANY, REQUEST, TERMS) as chunks:
        async for _ in chunks:
            await asyncio.sleep(1.0)
    assert (limit.limit, limit.growing_fast) == (4.0, True)


@virtual
@pytest.mark.parametrize(("places", "at_once"), [(2.0, 1), (1.0, 6)])
async def test_the_last_stream_that_the_machine_can_make_begins_with_more_audio(places: float, at_once: int) -> None:
    audio = [*[AudioChunk(b"\0" * 3840, None)] * 10, AudioChunk(b"", "stop")]
    made = Stream(audio)
    admission = Admission()
    admission._line(ANY.name).limit.limit = places
    async with SpeechStreams(decoder(lambda *_, **__: made), admission, 5.0).open(ANY, REQUEST, TERMS) as chunks:
        await anext(chunks)
        assert len(audio) - length_hint(made._chunks) == at_once
        assert len((await collected(chunks))[0]) == 9 * 3840, "the others follow"


@virtual
async def test_a_stream_shorter_than_the_cushion_is_sent_at_its_end() -> None:
    replica = Replica(0)
    replica.admission._line(ANY.name).limit.limit = 1.0
    async with replica.streams.open(ANY, REQUEST, TERMS) as chunks:
        pcm, last = await collected(chunks)
    assert (len(pcm), last.finish_reason) == (3840, "stop")
