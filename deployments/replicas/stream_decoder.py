"""Decodes many streams on one codec. Each has a slot of the pool, and the most urgent pieces are decoded together."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deployments.replicas.admission import Admission, DecodeCost, Listener
from deployments.replicas.batcher import Batcher
from deployments.replicas.health import Health
from deployments.replicas.torch_process import adopt_threads
from qwen_tts.audio import to_pcm16
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.state import DecoderState
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.recently_used import RecentlyUsed, content_key

log = logging.getLogger("ray.serve")

_WARM_UP_FRAMES, _WARM_UPS = 8, 8


@dataclass(frozen=True)
class _Piece:
    slot: int
    codes: NDArray[np.int16]  # [F, G]
    due_s: float  # when the listener runs out of audio


class Stream:
    """One stream with its slot of the pool."""

    def __init__(
        self,
        batcher: Batcher[_Piece, bytes],
        prime: Callable[[int, NDArray[np.int16], bool], Awaitable[None]],
        slot: int,
        admission: Admission,
        listener: Listener,
    ) -> None:
        self._batcher = batcher
        self._prime = prime
        self._slot = slot
        self._admission = admission
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
        most, due_s = self._admission.cost.frames_at_once, listener.due_s(time.monotonic())
        pieces = [_Piece(self._slot, codes[n : n + most], due_s) for n in range(0, len(codes), most)]
        try:
            pcm = b"".join([await self._batcher.submit(piece) for piece in pieces])
        finally:
            listener.waits = False
        listener.playback.send(len(codes) * FRAME_S, time.monotonic())
        self._admission.admit()
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
        self._admission = Admission(slots, changed)

    @property
    def slots_in_use(self) -> int:
        return self._admission.in_use

    @property
    def capacity(self) -> int:
        """The number of streams that this decoder can decode in time, by what decoding costs now."""
        return min(self._state.slots, self._admission.cost.streams_in_time)

    @property
    def waiting(self) -> int:
        """Streams that wait for a slot."""
        return self._admission.waiting

    @asynccontextmanager
    async def stream(self, playback: Playback) -> AsyncIterator[Stream]:
        """Wait for a slot of the pool and hold it. Decoded audio is noted in `playback`. Raises Overloaded."""
        async with self._admission.slot(playback) as listener:
            lease: Future[int | None] = self._thread.submit(self._state.lease)
            try:
                slot = await asyncio.wrap_future(lease)
                assert slot is not None, "more streams were admitted than the pool has slots"
                yield Stream(self._batcher, self._prime_on_thread, slot, self._admission, listener)
            finally:
                self._thread.submit(self._release, lease)

    def warm_up(self) -> None:
        """Decode a little, so that no caller waits for what happens once, and measure what decoding costs."""
        slot = self._state.lease()
        assert slot is not None, "the decoder warms up before its slots are in use"
        # The two sizes take turns, so that a machine that is busy for a while slows both.
        took_s = [(self._timed(slot, 1), self._timed(slot, _WARM_UP_FRAMES)) for _ in range(_WARM_UPS)]
        one_s, many_s = (min(times) for times in zip(*took_s, strict=True))
        self._state.release(slot)
        cost = self._admission.cost = DecodeCost.measured(one_s, many_s, _WARM_UP_FRAMES)
        batch_ms, frame_ms = 1000 * cost.batch_s, 1000 * cost.frame_s
        log.info("decoding takes %.1f ms a batch and %.1f ms for each frame in it", batch_ms, frame_ms)

    def _timed(self, slot: int, frames: int) -> float:
        """Return how long a piece of `frames` takes, in seconds."""
        began = time.monotonic()
        self._decode([_Piece(slot, np.zeros((frames, self._decoder.config.num_quantizers), dtype=np.int16), 0.0)])
        return time.monotonic() - began

    def _next_batch(self, waiting: Sequence[_Piece]) -> list[int]:
        """Choose the most urgent piece, and as many others of its length as there is time for."""
        by_urgency = sorted(range(len(waiting)), key=lambda index: waiting[index].due_s)
        frames = len(waiting[by_urgency[0]].codes)
        alike = [index for index in by_urgency if len(waiting[index].codes) == frames]
        return alike[: min(self._max_batch, max(1, self._admission.cost.frames_at_once // frames))]

    async def _prime_on_thread(self, slot: int, codes: NDArray[np.int16], keep: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._prime, slot, codes, keep)
        except Exception as error:  # of torch or of the device
            raise await loop.run_in_executor(self._thread, self._health.judge, error, self._probe) from error

    @torch.inference_mode()
    def _probe(self) -> None:
        """Decode a frame without a slot. Raises if that is not possible."""
        with self._health.watchdog.computing():
            codes = torch.zeros((1, 1, self._decoder.config.num_quantizers), dtype=torch.int64, device=self._device)
            _check_finite(self._decoder(codes, Carry()))

    @torch.inference_mode()
    def _prime(self, slot: int, codes: NDArray[np.int16], keep: bool) -> None:
        with self._health.watchdog.computing():
            key = content_key(codes)
            if (carry := self._primed.get(key)) is None:
                carry = Carry()
                self._decoder.prime(torch.tensor(codes, dtype=torch.int64, device=self._device)[None], carry)
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
        self._admission.observe(len(pieces) * codes.shape[1], time.monotonic() - began)
        return [to_pcm16(row) for row in samples.numpy()]


def _check_finite(samples: Tensor) -> None:
    if not bool(samples.isfinite().all()):
        raise FloatingPointError("samples are not finite")
