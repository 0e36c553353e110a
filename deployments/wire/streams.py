"""Streams from one deployment to another, which survive the replicas that make them.

Both streams of a request, frames from a talker and audio from a codec decoder, are opened here and nowhere else. When
the replica of a stream is lost, the stream is opened again on another replica, with the frames that exist already. The
new replica goes on with the next frame, because frames are a function of the request and its seed. The reader of the
stream sees a pause. A stream whose reader has got nothing yet is simply opened again.

Leaving a loop over a Serve response stream does not stop its producer. Leaving these context managers does.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle

from deployments.errors import REPLICA_LOST, Silence, Unavailable
from deployments.wire.callers import SERVE_NAMESPACE, replica_name
from deployments.wire.heartbeat import without_heartbeats
from deployments.wire.messages import AudioChunk, FrameChunk
from deployments.wire.text_inbox import InboxText
from deployments.wire.tracing import note_event, traceparent
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import EngineStopped, Overloaded
from qwen_tts.request import SpeechRequest

log = logging.getLogger("ray.serve")

Chunk = TypeVar("Chunk", FrameChunk, AudioChunk)
Frames = NDArray[np.int16] | None  # [F, G]: the frames that exist already
Lost = Callable[[BaseException], None]  # called when a replica was lost and the stream will be opened again

# A stream is given up after this many losses in a row without this many new frames between two of them. The request
# itself may be what kills replicas, and the prompt alone gives one frame.
_MOST_LOSSES = 5
_PROGRESS = 12
_FIRST_PAUSE_S = 0.1  # before the second attempt; each further pause is twice as long
# A stream that somebody hears waits this long for a replica that has room for it.
_PATIENCE_S = 30.0
_LONGEST_PAUSE_S = 0.25
_KILL_S = 1.0


class _Response(Protocol):
    """The part of Serve's DeploymentResponseGenerator that is used here."""

    def __aiter__(self) -> AsyncIterator[Any]: ...

    def cancel(self) -> None: ...


@asynccontextmanager
async def open_frames(
    talker: DeploymentHandle[Any],
    request: SpeechRequest,
    rest: InboxText | None,
    frames: Frames,
    silence_s: float,
    lost: Lost,
) -> AsyncIterator[AsyncIterator[FrameChunk]]:
    """Yield the frames of `request` behind `frames`, made by `talker`.

    The talker reads the `rest` of a live text from its inbox. A talker that sends nothing for `silence_s` is lost.
    Raises Unavailable when one talker after the other is lost, or what the talker raises.
    """

    call = partial(_call, talker, "generate", rest=rest)
    async with aclosing(_Resumed[FrameChunk](call, request, frames, silence_s, lost).chunks()) as chunks:
        yield chunks


@asynccontextmanager
async def open_audio(
    decoder: DeploymentHandle[Any],
    model: str,
    request: SpeechRequest,
    rest: InboxText | None,
    silence_s: float,
    lost: Lost,
) -> AsyncIterator[AsyncIterator[AudioChunk]]:
    """Yield the audio of `request`, spoken by the talker of `model`. The arguments and errors are those of
    `open_frames`."""

    call = partial(_call, decoder, "synthesize", model, rest=rest)
    async with aclosing(_Resumed[AudioChunk](call, request, None, silence_s, lost).chunks()) as chunks:
        yield chunks


class _Resumed(Generic[Chunk]):
    """One stream across all the replicas that make it."""

    def __init__(
        self,
        call: Callable[..., _Response],
        request: SpeechRequest,
        frames: Frames,
        silence_s: float,
        lost: Lost,
    ) -> None:
        """`call(request=..., frames=...)` opens the stream on any replica, behind the `frames` that exist."""
        self._call = call
        self._request = request
        self._made = [] if frames is None else [frames]
        self._silence_s = silence_s
        self._lost = lost
        self._playback = Playback(requested=time.monotonic(), ahead=request.ahead_s)
        self._losses = 0  # in a row
        self._new = 0  # frames since the latest loss
        self._refused_s: float | None = None  # the time of the first refusal in a row
        self._unheard_s: float | None = None  # the time of the first call in a row that no replica has heard

    async def chunks(self) -> AsyncGenerator[Chunk]:
        resumed = False
        while True:
            response = self._call(request=self._request_now(), frames=self._frames())
            try:
                async with aclosing(without_heartbeats(aiter(response), self._silence_s)) as chunks:
                    async for chunk in chunks:
                        self._note(chunk)
                        yield replace(chunk, resumed=True) if resumed else chunk
                        resumed = False
                        if chunk.finish_reason is not None:
                            return
                raise EngineStopped("a stream ended without its last chunk")
            except Silence as error:
                await self._after_silence(error)
                resumed = True
            except REPLICA_LOST as error:
                await self._after_loss(error)
                resumed = True
            except Overloaded as full:
                await self._after_refusal(full)
            finally:
                with suppress(*REPLICA_LOST):  # of a call that has reached no replica
                    response.cancel()

    def _request_now(self) -> SpeechRequest:
        """Return the request with the audio that the listener has in hand now."""
        now, ahead_s = time.monotonic(), self._request.ahead_s
        if self._playback.first_sent is not None:
            ahead_s = max(0.0, self._playback.headroom(now))
        elif ahead_s:  # the listener has heard some of the other audio since the stream was opened
            ahead_s = max(FRAME_S, self._playback.requested + ahead_s - now)
        return replace(self._request, ahead_s=ahead_s)

    def _frames(self) -> Frames:
        return np.concatenate(self._made) if self._made else None

    def _note(self, chunk: Chunk) -> None:
        if chunk.codes is None or not len(chunk.codes):
            return
        self._made.append(chunk.codes)
        self._playback.send(len(chunk.codes) * FRAME_S, time.monotonic())
        self._refused_s = self._unheard_s = None
        self._new += len(chunk.codes)
        if self._new >= _PROGRESS:
            self._losses = 0

    async def _after_loss(self, error: BaseException) -> None:
        """Prepare for the next attempt. Raises Unavailable if there were too many."""
        self._losses += 1
        self._new = 0
        if self._losses > _MOST_LOSSES:
            message = f"{self._losses} model replicas failed one after the other; send the request again later"
            raise Unavailable(message, "replica_failed", 1.0) from error
        made = sum(len(frames) for frames in self._made)
        log.warning("a replica was lost (%s); the stream goes on with frame %d on another one", error, made)
        note_event("resumed", frame=made, cause=type(error).__name__)
        self._lost(error)
        if self._losses > 1:
            await asyncio.sleep(_FIRST_PAUSE_S * 2 ** (self._losses - 2))

    async def _after_silence(self, error: Silence) -> None:
        """Kill a replica that hangs. If no replica has ever answered, wait for one, for at most `_PATIENCE_S`."""
        if error.replica is not None:
            await _kill(error.replica)
            await self._after_loss(error)
            return
        now = time.monotonic()
        self._unheard_s = now - error.seconds if self._unheard_s is None else self._unheard_s
        if now - self._unheard_s >= _PATIENCE_S:
            message = f"no replica has answered for {_PATIENCE_S:g} s; send the request again later"
            raise Unavailable(message, "not_ready", 2.0) from error

    async def _after_refusal(self, full: Overloaded) -> None:
        """Wait for room if somebody hears the stream already. Raises `full` otherwise, and after `_PATIENCE_S`."""
        now = time.monotonic()
        self._refused_s = now if self._refused_s is None else self._refused_s
        if not self._made or now - self._refused_s > _PATIENCE_S:
            raise full
        await asyncio.sleep(min(full.retry_after_s, _LONGEST_PAUSE_S))


def _call(handle: DeploymentHandle[Any], method: str, *args: object, **named: object) -> _Response:
    if (trace := traceparent()) is not None:
        named["trace"] = trace
    return cast("_Response", getattr(handle.options(stream=True), method).remote(*args, caller=replica_name(), **named))


async def _kill(replica: str) -> None:
    """Kill a replica that hangs. Serve replaces it, and its other streams learn at once that it is lost."""
    log.error("%s hangs and is killed", replica)

    def kill() -> None:
        with suppress(ValueError, RayError):  # it has left already, or the head node does not answer
            ray.kill(ray.get_actor(replica, namespace=SERVE_NAMESPACE))

    with suppress(TimeoutError):  # the thread goes on, and the stream need not wait
        await asyncio.wait_for(asyncio.to_thread(kill), _KILL_S)
