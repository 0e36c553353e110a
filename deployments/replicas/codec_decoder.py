"""The codec decoder's deployment: it receives frames from a talker and turns them into audio.

The decoder calls the talkers, because the decoder's state (about 5 MiB per stream) then belongs to one coroutine. The
stream stays with its state, and a caller that is cancelled cancels the talker, too.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle

from deployments.errors import Unavailable
from deployments.replicas.checkpoints import card_of, checkpoint_of
from deployments.replicas.health import Health
from deployments.replicas.metrics import StreamMetrics
from deployments.replicas.stream_decoder import Stream, StreamDecoder
from deployments.replicas.torch_process import in_own_thread, prepare_torch
from deployments.settings import CodecDecoderArgs, ModelArgs, TracingArgs
from deployments.wire.callers import Callers, replica_name
from deployments.wire.calls import answer
from deployments.wire.heartbeat import Heartbeat, with_heartbeats
from deployments.wire.load import Load
from deployments.wire.messages import AudioChunk, FrameChunk, ModelCard
from deployments.wire.start_states import report_start
from deployments.wire.streams import open_frames
from deployments.wire.text_inbox import InboxText
from deployments.wire.tracing import request_span, start_tracing
from qwen_tts.checkpoint import CODEC_DIRECTORY, DTYPES, resolve_checkpoint
from qwen_tts.codec.decoder import load_codec_decoder
from qwen_tts.engine.playback import Playback
from qwen_tts.request import ClonedVoice, SpeechRequest

log = logging.getLogger("ray.serve")

_FILES = ["config.json", "generation_config.json", f"{CODEC_DIRECTORY}/*"]  # of a checkpoint
_STARTING_RETRY_S = 5.0


class CodecDecoderDeployment:
    """Decodes the frames of every model of the application. Models with the same codec share its weights and slots."""

    def __init__(
        self,
        models: tuple[ModelArgs, ...],
        talkers: Mapping[str, DeploymentHandle[Any]],
        args: CodecDecoderArgs,
        tracing: TracingArgs,
    ) -> None:
        start_tracing(tracing.endpoint, tracing.sampling_ratio, "codec-decoder")
        device = prepare_torch(args)
        report_start("loading the weights")
        self._talkers = talkers
        self._name = replica_name()
        self._callers = Callers()
        self._silence_s = args.silence_timeout_s
        self._start_wait_s = {model.name: model.start_wait_s for model in models if model.start_wait_s is not None}
        self._cards: list[ModelCard] = []
        self._metrics = StreamMetrics()
        self._decoders: dict[str, StreamDecoder] = {}
        self._health = Health()
        by_content: dict[str, StreamDecoder] = {}
        for model in models:
            directory = resolve_checkpoint(checkpoint_of(model), _FILES)
            self._cards.append(card_of(model, directory))
            codec = directory / CODEC_DIRECTORY
            content = _digest(codec)
            if content not in by_content:
                by_content[content] = in_own_thread(partial(_load, codec, device, args, self._health, self._note_slots))
            self._decoders[model.name] = by_content[content]
        self._note_slots()
        # The talkers are found now, and not by the first stream, which may come while the head node is away.
        self._first_calls = [talker.ready.remote() for talker in self._called()]
        self._health.watchdog.start(args.hang_timeout_s)
        log.info("codec decoder ready: %d codec(s) on %s in %s", len(by_content), device, args.dtype)

    async def describe(self) -> list[ModelCard]:
        """Return the cards of all models in the order of the settings, as soon as every talker has loaded."""
        await asyncio.gather(*(answer(talker.ready.remote) for talker in self._called()))
        return self._cards

    def _called(self) -> list[DeploymentHandle[Any]]:
        """Return the talkers that always have a replica. A call would start a replica of the others."""
        return [talker for model, talker in self._talkers.items() if model not in self._start_wait_s]

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load of this replica. Serve calls this periodically if the deployment scales with its load."""
        decoders = set(self._decoders.values())
        return Load(
            capacity=sum(decoder.capacity for decoder in decoders),
            running=sum(decoder.slots_in_use for decoder in decoders),
            waiting=sum(decoder.waiting for decoder in decoders),
        ).stats()

    def check_health(self) -> None:
        """Raise EngineStopped if Serve must replace this replica. Serve calls this periodically."""
        self._health.check()

    async def has_room(self, model: str) -> bool:
        """Return whether a talker of `model` is half idle: the one that a request would go to now."""
        room: bool = await answer(self._talkers[model].has_room.remote)
        return room

    async def synthesize(
        self,
        model: str,
        request: SpeechRequest,
        rest: InboxText | None = None,
        frames: NDArray[np.int16] | None = None,
        caller: str | None = None,
        trace: str | None = None,
    ) -> AsyncIterator[AudioChunk | Heartbeat]:
        """Yield the audio of `request` while its frames are generated. The last chunk has the finish reason and usage.

        Heartbeats come in its pauses. The talker reads the `rest` of a live text. `frames` [F, G] exist already, and
        the listener has their audio from another decoder. The stream ends when the replica `caller` is lost. `trace` is
        the caller's `traceparent`. Raises Overloaded, Unavailable, or what the talker raises.
        """
        chunks = self._speak(model, request, rest, frames)
        with request_span("decode", trace):
            async with aclosing(with_heartbeats(chunks, self._name, self._callers, caller)) as beating:
                async for chunk in beating:
                    yield chunk

    async def _speak(
        self, model: str, request: SpeechRequest, rest: InboxText | None, frames: NDArray[np.int16] | None
    ) -> AsyncGenerator[AudioChunk]:
        """Yield the audio. The talker is called only when the stream has its slot of the decoder, so a request that
        waits or is refused here uses nothing of the talker."""
        await self._started(model)
        continues = request.ahead_s > 0 or frames is not None
        playback = Playback(requested=time.monotonic(), ahead=request.ahead_s, continues=continues)
        lost = partial(self._metrics.resumed, model)
        with self._metrics.stream(model, playback) as observe:
            async with (
                self._decoders[model].stream(playback) as stream,
                open_frames(self._talkers[model], request, rest, frames, self._silence_s, lost) as chunks,
            ):
                first = await anext(chunks)
                await _prime(stream, request, frames)
                yield observe(await _audio(stream, first))
                async for chunk in chunks:
                    yield observe(await _audio(stream, chunk))

    async def _started(self, model: str) -> None:
        """Wait until a talker of `model` runs, if the model may have none. Raises Unavailable `model_starting`."""
        if (most_s := self._start_wait_s.get(model)) is None:
            return
        ready = self._talkers[model].ready.remote()
        try:
            async with asyncio.timeout(most_s):
                await ready
        except TimeoutError:
            ready.cancel()  # type: ignore[no-untyped-call]
            message = f"model {model} is starting, because it had not been used; send the request again later"
            raise Unavailable(message, "model_starting", _STARTING_RETRY_S) from None

    def _note_slots(self) -> None:
        decoders = set(self._decoders.values())
        self._metrics.slots(
            in_use=sum(decoder.slots_in_use for decoder in decoders),
            waiting=sum(decoder.waiting for decoder in decoders),
        )


def _load(
    codec: Path, device: torch.device, args: CodecDecoderArgs, health: Health, slots_changed: Callable[[], None]
) -> StreamDecoder:
    decoder = load_codec_decoder(codec, device, DTYPES[args.dtype])
    streams = StreamDecoder(decoder, args.slots, args.max_batch, args.primed_cache_bytes, health, slots_changed)
    streams.warm_up()
    return streams


async def _prime(stream: Stream, request: SpeechRequest, frames: NDArray[np.int16] | None) -> None:
    """Bring a new stream into the state behind its reference and behind the frames whose audio exists already."""
    reference = request.voice.prompt.ref_codes if isinstance(request.voice, ClonedVoice) else None
    if reference is not None and frames is not None:
        await stream.prime(np.concatenate((reference, frames)), keep=False)
    elif frames is not None:
        await stream.prime(frames, keep=False)
    elif reference is not None:
        await stream.prime(reference)


async def _audio(stream: Stream, chunk: FrameChunk) -> AudioChunk:
    pcm = await stream.decode(chunk.codes) if len(chunk.codes) else b""
    return AudioChunk(pcm, chunk.finish_reason, chunk.usage, codes=chunk.codes, resumed=chunk.resumed)


def _digest(codec: Path) -> str:
    """Return a digest of a codec directory's content: its config and weights."""
    digest = hashlib.sha256()
    for file in sorted(codec.glob("*.json")) + sorted(codec.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
