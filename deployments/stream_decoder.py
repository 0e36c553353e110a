"""Decoding many streams on one codec: a slot each, whichever are ready decoded together."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.batcher import Batcher
from deployments.messages import Load
from deployments.torch_replica import adopt_threads
from qwen_tts.audio import to_pcm16
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.state import DecoderState
from qwen_tts.recently_used import RecentlyUsed, content_key


@dataclass(frozen=True)
class _Piece:
    slot: int
    codes: NDArray[np.int16]  # [F, G]


class Stream:
    """One stream's place in the pool."""

    def __init__(
        self,
        batcher: Batcher[_Piece, bytes],
        prime: Callable[[int, NDArray[np.int16]], Awaitable[None]],
        slot: int,
    ) -> None:
        self._batcher = batcher
        self._prime = prime
        self._slot = slot

    async def prime(self, codes: NDArray[np.int16]) -> None:
        """Go on from the end of these frames, codes [F, G], of a stream that has decoded nothing yet."""
        await self._prime(self._slot, codes)

    async def decode(self, codes: NDArray[np.int16]) -> bytes:
        """The next frames, codes [F, G], as 16-bit PCM of F * 1920 samples."""
        return await self._batcher.submit(_Piece(self._slot, codes))


class StreamDecoder:
    """A decoder with its pool. Decoding, leasing and releasing all happen on one thread, in the order asked for,
    so that a stream cancelled while its batch is being decoded gives its slot back after that batch.

    `primed_cache_bytes` of what priming leaves are kept for the next streams that go on from the same frames."""

    def __init__(
        self, decoder: CodecDecoder, slots: int, max_batch: int, sample_rate_hz: int, primed_cache_bytes: int
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._decoder = decoder
        self._device = decoder.pre_conv.conv.weight.device
        self._state = DecoderState(decoder, slots)
        self._primed = RecentlyUsed[Carry](primed_cache_bytes)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codec-decoder", initializer=adopt_threads)
        self._batcher = Batcher(self._decode, self._thread, max_batch, size=lambda piece: len(piece.codes))
        self._room = asyncio.Semaphore(slots)
        self._waiting = 0

    def load(self) -> Load:
        return Load(slots=self._state.slots, used=self._state.used, waiting=self._waiting)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[Stream]:
        """A slot of the pool, waiting for one if need be."""
        self._waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        lease: Future[int | None] = self._thread.submit(self._state.lease)
        try:
            slot = await asyncio.wrap_future(lease)
            assert slot is not None, "the semaphore and the pool disagree"
            yield Stream(self._batcher, self._prime_on_thread, slot)
        finally:
            self._thread.submit(self._release, lease)
            self._room.release()

    def warm_up(self) -> None:
        slot = self._state.lease()
        assert slot is not None
        self._decode([_Piece(slot, np.zeros((1, self._decoder.config.num_quantizers), dtype=np.int16))])
        self._state.release(slot)

    async def _prime_on_thread(self, slot: int, codes: NDArray[np.int16]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._prime, slot, codes)

    @torch.inference_mode()
    def _prime(self, slot: int, codes: NDArray[np.int16]) -> None:
        key = content_key(codes)
        if (carry := self._primed.get(key)) is None:
            carry = Carry()
            self._decoder.prime(torch.tensor(codes, dtype=torch.int64, device=self._device)[None], carry)
            # Copied: what a layer keeps is often the end of something larger, which would stay in memory with it.
            carry.kept = [tensor.clone() for tensor in carry.kept]
            self._primed.put(key, carry, sum(tensor.nbytes for tensor in carry.kept))
        self._state.scatter([slot], carry)

    def _release(self, lease: "Future[int | None]") -> None:
        slot = lease.result()
        assert slot is not None
        self._state.release(slot)

    @torch.inference_mode()
    def _decode(self, pieces: Sequence[_Piece]) -> list[bytes]:
        """Pieces of one length."""
        slots = [piece.slot for piece in pieces]
        codes = torch.from_numpy(np.stack([piece.codes for piece in pieces]))
        carry = self._state.gather(slots)
        samples = self._decoder(codes.to(self._device, torch.int64), carry)  # [B, S]
        self._state.scatter(slots, carry)
        return [to_pcm16(row) for row in samples.float().cpu().numpy()]
