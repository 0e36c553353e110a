"""Many streams on one codec decoder: each sounds as if it were alone, and every slot is released."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deployments.replicas.health import Health
from deployments.replicas.stream_decoder import BatchSize, StreamDecoder, _Piece
from qwen_tts.audio import to_pcm16
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import EngineStopped, RequestFailed
from tests.deployments.replicas.conftest import Leaving
from tests.qwen_tts.engine.decoding import decode, load_decoder, random_codes

PATIENCE_S = 30.0
SLOTS = 3


@pytest.fixture(scope="module")
def decoder(custom_voice: Path) -> CodecDecoder:
    return load_decoder(custom_voice)


@pytest.fixture
async def streams(decoder: CodecDecoder) -> AsyncIterator[StreamDecoder]:
    """After every test all slots must be free."""
    streams = StreamDecoder(decoder, SLOTS, max_batch=2, primed_cache_bytes=1_000_000, health=Health())
    yield streams
    await settle(streams)
    assert load(streams) == (0, 0)
    streams._thread.shutdown()


def load(streams: StreamDecoder) -> tuple[int, int]:
    """Return the number of slots in use and the number of streams that wait for one."""
    return streams._state.used, streams.waiting


def playback(ahead_s: float = 0.0) -> Playback:
    return Playback(requested=time.monotonic(), ahead=ahead_s)


async def settle(streams: StreamDecoder) -> None:
    """Wait until the decoder's thread has done all its work."""
    await asyncio.wrap_future(streams._thread.submit(lambda: None))


async def speak(streams: StreamDecoder, codes: Tensor, sizes: list[int]) -> bytes:
    """Return the PCM of one stream, codes [F, G], decoded in pieces of `sizes`. The last size is repeated."""
    bounds = [0]
    while bounds[-1] < len(codes):
        bounds.append(min(bounds[-1] + sizes[min(len(bounds) - 1, len(sizes) - 1)], len(codes)))
    async with asyncio.timeout(PATIENCE_S), streams.stream(playback()) as stream:
        return b"".join([await stream.decode(codes[a:b].short().numpy()) for a, b in pairwise(bounds)])


def assert_sounds_like(pcm: bytes, decoder: CodecDecoder, codes: Tensor) -> None:
    expected = np.frombuffer(to_pcm16(decode(decoder, codes[None])[0].numpy()), dtype="<i2").astype(np.int32)
    np.testing.assert_allclose(np.frombuffer(pcm, dtype="<i2"), expected, atol=1, rtol=0)


async def test_streams_of_all_chunkings_sound_as_alone(streams: StreamDecoder, decoder: CodecDecoder) -> None:
    """Six streams share three slots, and a batch has at most two. So streams wait, and slots are used again."""
    schedules = [[1], [2], [7], [1, 2, 4, 8], [8, 1], [50]]
    spoken = [random_codes(20 + 3 * seed, seed=seed)[0] for seed in range(len(schedules))]
    heard = await asyncio.gather(
        *(speak(streams, codes, sizes) for codes, sizes in zip(spoken, schedules, strict=True))
    )
    for pcm, codes in zip(heard, spoken, strict=True):
        assert_sounds_like(pcm, decoder, codes)


async def test_a_stream_waits_for_a_slot(streams: StreamDecoder) -> None:
    opened, leave = asyncio.Queue[int](), asyncio.Event()

    async def hold(name: int) -> None:
        async with streams.stream(playback()):
            opened.put_nowait(name)
            await leave.wait()

    tasks = [asyncio.create_task(hold(name)) for name in range(SLOTS + 2)]
    assert sorted([await opened.get() for _ in range(SLOTS)]) == [0, 1, 2]
    assert load(streams) == (SLOTS, 2)
    tasks[0].cancel()
    assert await asyncio.wait_for(opened.get(), PATIENCE_S) == SLOTS
    tasks[-1].cancel()
    await asyncio.sleep(0)
    assert load(streams) == (SLOTS, 0), "the cancelled stream waits no more"
    leave.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_cancelled_in_a_batch_gives_its_slot_back_after_it(streams: StreamDecoder, decoder: CodecDecoder) -> None:
    codes = random_codes(12)[0]
    gate, opened, speaks = threading.Event(), asyncio.Event(), asyncio.Event()

    async def leave() -> None:
        async with streams.stream(playback()) as stream:
            opened.set()
            await speaks.wait()
            await stream.decode(codes.short().numpy())

    async with streams.stream(playback()) as stays:
        gone = asyncio.create_task(leave())
        await asyncio.wait_for(opened.wait(), PATIENCE_S)
        streams._thread.submit(gate.wait, PATIENCE_S)
        speaks.set()
        heard = asyncio.create_task(stays.decode(codes.short().numpy()))
        for _ in range(3):  # until both are in a batch, behind the gate
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        assert gone.cancelled()
        assert load(streams)[0] == 2, "its batch has yet to be decoded"
        gate.set()
        assert_sounds_like(await heard, decoder, codes)
        await settle(streams)
        assert load(streams)[0] == 1


async def test_streams_cancelled_before_they_have_a_slot_take_none(streams: StreamDecoder) -> None:
    gate = threading.Event()
    streams._thread.submit(gate.wait, PATIENCE_S)
    tasks = [asyncio.create_task(speak(streams, random_codes(2)[0], [1])) for _ in range(SLOTS)]
    await asyncio.sleep(0)
    asked_for_all = streams.slots_in_use == SLOTS
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    gate.set()
    assert asked_for_all, "the streams were cancelled before they had slots, so this test has shown nothing"
    assert all(task.cancelled() for task in tasks)
    await settle(streams)
    assert load(streams) == (0, 0)


async def test_a_code_out_of_range_ends_its_stream_alone(streams: StreamDecoder, decoder: CodecDecoder) -> None:
    codes = random_codes(6)[0]
    good, bad, other = await asyncio.gather(
        *(speak(streams, spoken, [2]) for spoken in (codes, codes + 10_000, codes)), return_exceptions=True
    )
    assert isinstance(bad, RequestFailed)
    for pcm in (good, other):
        assert isinstance(pcm, bytes)
        assert_sounds_like(pcm, decoder, codes)
    streams._health.check()


async def test_samples_that_are_not_finite_end_their_stream_alone(
    streams: StreamDecoder, decoder: CodecDecoder
) -> None:
    """A stream that shares its batches with the other from the beginning, and whose state is then lost."""
    codes = random_codes(6)[0]
    async with streams.stream(playback()) as stays, streams.stream(playback()) as bad:
        heard = await stays.decode(codes[:2].short().numpy())
        for tensor in streams._state.tensors:
            if tensor.is_floating_point():
                tensor[bad._slot] = torch.nan
        rest = stays.decode(codes[2:].short().numpy())
        pcm, failure = await asyncio.gather(rest, bad.decode(codes[2:].short().numpy()), return_exceptions=True)
        assert isinstance(failure, RequestFailed)
        assert isinstance(pcm, bytes)
        assert_sounds_like(heard + pcm, decoder, codes)
    assert_sounds_like(await speak(streams, codes, [2]), decoder, codes)
    streams._health.check()


async def decoded(
    streams: StreamDecoder, monkeypatch: pytest.MonkeyPatch, lengths: list[int], aheads_s: list[float]
) -> list[list[int]]:
    """Let every stream submit a piece while the decoder is busy. Return the batches, as numbers of streams."""
    batches: list[list[int]] = []
    decode, gate = streams._decode, threading.Event()
    numbers: dict[int, int] = {}

    def noted(pieces: Sequence[_Piece]) -> list[bytes]:
        batches.append([numbers[piece.slot] for piece in pieces])
        return decode(pieces)

    monkeypatch.setattr(streams._batcher, "_run", noted)

    async def one(number: int) -> None:
        async with streams.stream(playback(aheads_s[number])) as stream:
            numbers[stream._slot] = number
            opened.release()
            await everyone.wait()
            await stream.decode(random_codes(lengths[number])[0].short().numpy())

    opened, everyone = asyncio.Semaphore(0), asyncio.Event()
    tasks = [asyncio.create_task(one(number)) for number in range(len(lengths))]
    for _ in lengths:
        await opened.acquire()
    streams._thread.submit(gate.wait, PATIENCE_S)
    everyone.set()
    await asyncio.sleep(0.05)  # until all of them wait
    gate.set()
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
    return batches


async def test_the_stream_whose_audio_ends_first_is_decoded_first(
    streams: StreamDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first piece is decoded already when the others arrive."""
    assert await decoded(streams, monkeypatch, [2, 3, 4], [0.0, 9.0, 1.0]) == [[0], [2], [1]]


async def test_pieces_of_one_length_are_decoded_together(
    streams: StreamDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await decoded(streams, monkeypatch, [2, 3, 3], [0.0, 9.0, 1.0]) == [[0], [1, 2]]


@pytest.mark.parametrize(("frame_s", "batches"), [(1e-6, [[0], [1, 2]]), (1.0, [[0], [2], [1]])])
async def test_a_batch_takes_no_longer_than_half_a_frame(
    streams: StreamDecoder, monkeypatch: pytest.MonkeyPatch, frame_s: float, batches: list[list[int]]
) -> None:
    monkeypatch.setattr("deployments.replicas.stream_decoder._WEIGHT", 0.0)
    monkeypatch.setattr(streams._size, "_frame_s", frame_s)
    assert await decoded(streams, monkeypatch, [1, 5, 5], [0.0, 9.0, 1.0]) == batches


@pytest.mark.parametrize(("frame_s", "frames"), [(0.001, 40), (0.004, 10), (1.0, 8), (0.0, 40_000)])
def test_the_size_of_a_batch_follows_the_machine(frame_s: float, frames: int) -> None:
    """Half a frame's time is 40 ms. A batch may always have eight frames."""
    size = BatchSize()
    for _ in range(200):
        size.observe(5, 5 * frame_s)
    assert size.frames == pytest.approx(frames, abs=1)


async def cloned(streams: StreamDecoder, reference: Tensor, codes: Tensor) -> bytes:
    async with asyncio.timeout(PATIENCE_S), streams.stream(playback()) as stream:
        await stream.prime(reference.short().numpy())
        return await stream.decode(codes.short().numpy())


async def test_a_known_reference_is_not_read_again_and_sounds_the_same(
    streams: StreamDecoder, decoder: CodecDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Tensor] = []
    priming = decoder.priming

    def counted(codes: Tensor, carry: Carry) -> Iterator[None]:
        read.append(codes)
        return priming(codes, carry)

    monkeypatch.setattr(decoder, "priming", counted)
    references, codes = random_codes(150, streams=2), random_codes(7, seed=1)[0]
    references[1] = references[0]
    references[1, 11, 2] += 1 if references[0, 11, 2] == 0 else -1
    heard = [await cloned(streams, reference, codes) for reference in references]
    for state in streams._state.tensors:
        state.fill_(7)
    assert [await cloned(streams, reference, codes) for reference in references] == heard
    assert len(read) == 2, "references that differ in one code are different"
    assert heard[0] != heard[1]

    for reference, pcm in zip(references, heard, strict=True):
        whole = to_pcm16(decode(decoder, torch.cat((reference, codes))[None])[0].numpy())
        np.testing.assert_allclose(
            np.frombuffer(pcm, "<i2"), np.frombuffer(whole[-len(pcm) :], "<i2").astype(np.int32), atol=1, rtol=0
        )


async def test_known_references_are_bounded_in_bytes(streams: StreamDecoder, decoder: CodecDecoder) -> None:
    references, codes = random_codes(5, streams=40), random_codes(2, seed=1)[0]
    first = await cloned(streams, references[0], codes)
    one = streams._primed.used
    assert one == sum(tensor[0].nbytes for tensor in streams._state.tensors)
    assert 0 < streams._primed.limit // one < len(references), "not all references can be kept"
    for reference in references[1:]:
        await cloned(streams, reference, codes)
    assert streams._primed.used == streams._primed.limit // one * one
    assert await cloned(streams, references[0], codes) == first


async def test_load_is_never_negative(streams: StreamDecoder) -> None:
    gate = threading.Event()
    async with streams.stream(playback()):
        streams._thread.submit(gate.wait, PATIENCE_S)
    waiting = streams.waiting
    gate.set()
    assert waiting == 0
    await settle(streams)


async def test_warm_up_leaves_the_pool_free(streams: StreamDecoder) -> None:
    streams.warm_up()
    assert load(streams) == (0, 0)


async def test_a_slot_that_is_released_twice_makes_the_decoder_unhealthy(
    streams: StreamDecoder, caplog: pytest.LogCaptureFixture
) -> None:
    async with streams.stream(playback()) as stream:
        streams._health.check()
        streams._state.release(stream._slot)
    await settle(streams)
    assert "slot 0 released twice" in caplog.text
    with pytest.raises(EngineStopped):
        streams._health.check()


async def test_a_pool_with_fewer_slots_than_streams_makes_the_decoder_unhealthy(
    streams: StreamDecoder, caplog: pytest.LogCaptureFixture
) -> None:
    taken = [streams._state.lease() for _ in range(SLOTS)]
    with pytest.raises(AssertionError):
        async with streams.stream(playback()):
            pass
    await settle(streams)
    assert "more streams were admitted than the pool has slots" in caplog.text
    with pytest.raises(EngineStopped):
        streams._health.check()
    for slot in taken:
        assert slot is not None
        streams._state.release(slot)


@pytest.mark.parametrize("primed", [False, True])
async def test_a_decoder_that_always_fails_is_beyond_repair(
    streams: StreamDecoder, decoder: CodecDecoder, monkeypatch: pytest.MonkeyPatch, leaving: Leaving, primed: bool
) -> None:
    def fail(codes: Tensor, carry: Carry) -> Tensor:
        raise RuntimeError("device lost")

    for method in ("priming", "forward"):
        monkeypatch.setattr(decoder, method, fail)
    codes = random_codes(2)[0]
    streams._health.check()
    with pytest.raises(EngineStopped):
        await (cloned(streams, codes, codes) if primed else speak(streams, codes, [2]))
    assert leaving.count == 1
    with pytest.raises(EngineStopped):
        streams._health.check()


async def test_a_reference_that_cannot_be_read_fails_alone(streams: StreamDecoder, decoder: CodecDecoder) -> None:
    codes = random_codes(2)[0]
    with pytest.raises(RequestFailed):
        await cloned(streams, codes + 10_000, codes)
    streams._health.check()
    assert_sounds_like(await speak(streams, codes, [2]), decoder, codes)
