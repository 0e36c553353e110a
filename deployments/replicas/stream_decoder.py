"""Decodes many streams on one codec. Each has a slot of the pool, and the most urgent pieces are decoded together."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deployments.replicas.batcher import Batcher
from deployments.replicas.decoder_slots import DecoderSlots, Listener
from deployments.replicas.health import Health
from deployments.replicas.torch_process import adopt_threads
from qwen_tts.audio import to_pcm16
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.state import DecoderState
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.recently_used import RecentlyUsed, content_key

# A batch may take this long, because a piece that arrives in the middle of a batch waits for its end. It may always
# have this many frames: a smaller batch costs almost as much.
_BATCH_S = FRAME_S / 2
_LEAST_FRAMES = 8
_WEIGHT = 0.1  # of the newest batch in the average time of a frame


@dataclass(frozen=True)
class _Piece:
    slot: int
    codes: NDArray[np.int16]  # [F, G]
    due_s: float  # when the listener runs out of audio


class BatchSize:
    """How many frames a batch may have, by the average time that a frame took in the latest batches.

    Small batches make a frame look slow, because a batch also has a time of its own. Then the bound is low, but it is
    reached only while more frames wait. Full batches correct the average.
    """

    def __init__(self) -> None:
        self._frame_s = _BATCH_S / _LEAST_FRAMES

    def observe(self, frames: int, took_s: float) -> None:
        """Count the newest batch. Called by the decoder's thread."""
        assert frames > 0, "a batch without frames"
        self._frame_s += _WEIGHT * (took_s / frames - self._frame_s)  # one assignment: other threads read it

    @property
    def streams_in_time(self) -> int:
        """How many streams can be decoded in half of the time, a frame of each in a batch. At least 1."""
        return max(1, int(_BATCH_S / max(self._frame_s, 1e-6)))

    @property
    def frames(self) -> int:
        return max(_LEAST_FRAMES, self.streams_in_time)


class Stream:
    """One stream with its slot of the pool."""

    def __init__(
        self,
        batcher: Batcher[_Piece, bytes],
        prime: Callable[[int, NDArray[np.int16], bool], Awaitable[None]],
        slot: int,
        size: BatchSize,
        listener: Listener,
    ) -> None:
        self._batcher = batcher
        self._prime = prime
        self._slot = slot
        self._size = size
        self._listener = listener

    async def prime(self, codes: NDArray[np.int16], *, keep: bool = True) -> None:
        """Let the stream continue from the end of these frames, codes [F, G]. Call this before `decode`.

        With `keep`, the state is kept for later streams that continue from the same frames.
        """
        await self._prime(self._slot, codes, keep)

    async def decode(self, codes: NDArray[np.int16]) -> bytes:
        """Decode the next frames, codes [F, G], to 16-bit PCM of F * 1920 samples, and note it in the playback."""
        listener = self._listener
        assert not listener.waits, f"slot {self._slot}: two pieces of one stream at a time"
        listener.waits = True
        most, due_s = self._size.frames, listener.due_s(time.monotonic())
        pieces = [_Piece(self._slot, codes[n : n + most], due_s) for n in range(0, len(codes), most)]
        try:
            pcm = b"".join([await self._batcher.submit(piece) for piece in pieces])
        finally:
            listener.waits = False
        listener.playback.send(len(codes) * FRAME_S, time.monotonic())
        return pcm


class StreamDecoder:
    """A decoder with its pool of slots.

    One thread decodes, leases and releases, in the order of submission. So the slot of a stream that is cancelled while
    its batch is decoded is released after that batch. `primed_cache_bytes` of primed states are kept for later streams
    that continue from the same frames. `changed` is called whenever streams come or go.
    """

    def __init__(
        self,
        decoder: CodecDecoder,
        slots: int,
        max_batch: int,
        primed_cache_bytes: int,
        health: Health,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._decoder = decoder
        self._device = decoder.pre_conv.conv.weight.device
        self._state = DecoderState(decoder, slots)
        self._primed = RecentlyUsed[Carry](primed_cache_bytes)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codec-decoder", initializer=adopt_threads)
        self._max_batch = max_batch
        self._health = health
        self._batcher = Batcher(self._decode, self._thread, self._next_batch, health, self._probe)
        self._slots = DecoderSlots(slots, changed)
        self._size = BatchSize()

    @property
    def slots_in_use(self) -> int:
        return self._slots.in_use

    @property
    def capacity(self) -> int:
        """The number of streams that this decoder can decode in time, by what decoding costs now."""
        return min(self._state.slots, self._size.streams_in_time)

    @property
    def waiting(self) -> int:
        """Streams that wait for a slot."""
        return self._slots.waiting

    @asynccontextmanager
    async def stream(self, playback: Playback) -> AsyncIterator[Stream]:
        """Wait for a slot of the pool and hold it. Decoded audio is noted in `playback`. Raises Overloaded."""
        async with self._slots.slot(playback) as listener:
            lease: Future[int | None] = self._thread.submit(self._state.lease)
            try:
                slot = await asyncio.wrap_future(lease)
                assert slot is not None, "more streams were admitted than the pool has slots"
                yield Stream(self._batcher, self._prime_on_thread, slot, self._size, listener)
            finally:
                self._thread.submit(self._release, lease)

    def warm_up(self) -> None:
        """Decode a little, so that no caller waits for what happens once."""
        slot = self._state.lease()
        assert slot is not None, "the decoder warms up before its slots are in use"
        for frames in (1, _LEAST_FRAMES):
            self._decode([_Piece(slot, np.zeros((frames, self._decoder.config.num_quantizers), dtype=np.int16), 0.0)])
        self._state.release(slot)
        self._size = BatchSize()  # without what happened once

    def _next_batch(self, waiting: Sequence[_Piece]) -> list[int]:
        """Choose the most urgent piece, and as many others of its length as there is time for."""
        by_urgency = sorted(range(len(waiting)), key=lambda index: waiting[index].due_s)
        frames = len(waiting[by_urgency[0]].codes)
        alike = [index for index in by_urgency if len(waiting[index].codes) == frames]
        return alike[: min(self._max_batch, max(1, self._size.frames // frames))]

    async def _prime_on_thread(self, slot: int, codes: NDArray[np.int16], keep: bool) -> None:
        """Prime a slot. Between the pieces of a long stream, the thread decodes for other listeners."""
        loop = asyncio.get_running_loop()
        priming = self._priming(slot, codes, keep)
        try:
            while not await loop.run_in_executor(self._thread, self._next_piece, priming):
                pass
        except Exception as error:  # of torch or of the device
            raise await loop.run_in_executor(self._thread, self._health.judge, error, self._probe) from error

    def _next_piece(self, priming: Iterator[bool]) -> bool:
        """Compute the next piece of `priming`. Return whether it was the last one."""
        with self._health.watchdog.computing(), torch.inference_mode():
            return next(priming, True)

    @torch.inference_mode()
    def _probe(self) -> None:
        """Decode a frame without a slot. Raises if that is not possible."""
        with self._health.watchdog.computing():
            codes = torch.zeros((1, 1, self._decoder.config.num_quantizers), dtype=torch.int64, device=self._device)
            _check_finite(self._decoder(codes, Carry()))

    def _priming(self, slot: int, codes: NDArray[np.int16], keep: bool) -> Iterator[bool]:
        """Yield False after each piece but the last one."""
        key = content_key(codes)
        if (carry := self._primed.get(key)) is None:
            carry = Carry()
            frames = torch.tensor(codes, dtype=torch.int64, device=self._device)[None]
            for _ in self._decoder.priming(frames, carry):
                yield False
            # A layer often keeps a view of a larger tensor. Copies let go of the rest of its memory.
            carry.kept = [tensor.clone() for tensor in carry.kept]
            if keep:
                self._primed.put(key, carry, sum(tensor.nbytes for tensor in carry.kept))
        self._state.scatter([slot], carry)

    def _release(self, lease: "Future[int | None]") -> None:
        """Release the slot of `lease`. The decoder's thread calls this after all work that the stream submitted."""
        if lease.cancelled():  # the stream ended before it had a slot
            return
        try:
            slot = lease.result()
            assert slot is not None, "more streams were admitted than the pool has slots"
            self._state.release(slot)
        except Exception as error:  # nobody awaits a release
            self._health.failed(error)

    @torch.inference_mode()
    def _decode(self, pieces: Sequence[_Piece]) -> list[bytes]:
        """Decode pieces of one length. If this raises, the states of their streams are unchanged."""
        began = time.monotonic()
        slots = [piece.slot for piece in pieces]
        with self._health.watchdog.computing():
            codes = torch.from_numpy(np.stack([piece.codes for piece in pieces]))
            carry = self._state.gather(slots)
            samples = self._decoder(codes.to(self._device, torch.int64), carry).float().cpu()  # [B, S]
            _check_finite(samples)
            self._state.scatter(slots, carry)
        self._size.observe(len(pieces) * codes.shape[1], time.monotonic() - began)
        return [to_pcm16(row) for row in samples.numpy()]


def _check_finite(samples: Tensor) -> None:
    if not bool(samples.isfinite().all()):
        raise FloatingPointError("samples are not finite")
