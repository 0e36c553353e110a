"""CodecDecoder deployment: pulls frames from a talker and turns them into audio.

The decoder holds the talkers' handles because the stateful hop (about 5 MiB per stream) is then a local variable of
one coroutine: the stream stays with its state, and a cancelled caller cancels the talker through `finally`.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray.serve.handle import DeploymentHandle

from deployments.replicas.checkpoints import checkpoint_of
from deployments.replicas.metrics import StreamMetrics
from deployments.replicas.stream_decoder import Stream, StreamDecoder
from deployments.replicas.torch_process import in_own_thread, prepare_torch
from deployments.settings import CodecDecoderArgs, ModelArgs
from deployments.wire.messages import AudioChunk, FrameChunk, ModelCard
from deployments.wire.start_states import report_start
from deployments.wire.streams import open_frames
from deployments.wire.text_inbox import InboxText
from qwen_tts.checkpoint import CODEC_DIRECTORY, DTYPES, resolve_checkpoint
from qwen_tts.codec.decoder import load_codec_decoder
from qwen_tts.engine.playback import Playback
from qwen_tts.request import ClonedVoice, SpeechRequest

log = logging.getLogger("ray.serve")


class CodecDecoderDeployment:
    """Speaks with any of the application's models; models that share a codec share its weights and its pool."""

    def __init__(
        self,
        models: tuple[ModelArgs, ...],
        talkers: Mapping[str, DeploymentHandle[Any]],
        args: CodecDecoderArgs,
    ) -> None:
        device = prepare_torch(args)
        report_start("loading the weights")
        self._talkers = talkers
        self._metrics = StreamMetrics()
        self._decoders: dict[str, StreamDecoder] = {}
        by_content: dict[str, StreamDecoder] = {}
        for model in models:
            checkpoint = checkpoint_of(model)
            codec = resolve_checkpoint(checkpoint, [f"{CODEC_DIRECTORY}/*"]) / CODEC_DIRECTORY
            content = _digest(codec)
            if content not in by_content:
                by_content[content] = in_own_thread(partial(_load, codec, device, args, self._note_slots))
            self._decoders[model.name] = by_content[content]
        self._note_slots()
        log.info("codec decoder ready: %d codec(s) on %s in %s", len(by_content), device, args.dtype)

    async def describe(self) -> list[ModelCard]:
        """Cards of all models, once every talker has loaded; first model first."""
        return list(await asyncio.gather(*(talker.describe.remote() for talker in self._talkers.values())))

    def check_health(self) -> None:
        """Called by Serve, which replaces the replica when this raises."""
        for decoder in set(self._decoders.values()):
            decoder.check_health()

    async def has_room(self, model: str) -> bool:
        """Whether a talker of `model`, the one that a request would go to now, is half idle."""
        room: bool = await self._talkers[model].has_room.remote()
        return room

    async def synthesize(
        self, model: str, request: SpeechRequest, rest: InboxText | None = None
    ) -> AsyncIterator[AudioChunk]:
        """Audio of `request` while its frames are being generated; the last chunk carries the finish reason and
        usage. The talker reads the `rest` of a text that is still being written.

        The talker is called when the stream has its slot here, so a request that waits or is refused costs it nothing.
        Raises Overloaded, or what the talker raises, before the first chunk unless the talker dies later.
        """
        playback = Playback(requested=time.monotonic(), ahead=request.ahead_s)
        with self._metrics.stream(model, playback) as observe:
            async with (
                self._decoders[model].stream(playback) as stream,
                open_frames(self._talkers[model], request, rest) as chunks,
            ):
                first = await anext(chunks)
                if isinstance(request.voice, ClonedVoice) and request.voice.prompt.ref_codes is not None:
                    await stream.prime(request.voice.prompt.ref_codes)
                yield observe(await _audio(stream, first))
                async for chunk in chunks:
                    yield observe(await _audio(stream, chunk))

    def _note_slots(self) -> None:
        decoders = set(self._decoders.values())
        self._metrics.slots(
            in_use=sum(decoder.slots_in_use for decoder in decoders),
            waiting=sum(decoder.waiting for decoder in decoders),
        )


def _load(
    codec: Path, device: torch.device, args: CodecDecoderArgs, slots_changed: Callable[[], None]
) -> StreamDecoder:
    decoder = load_codec_decoder(codec, device, DTYPES[args.dtype])
    streams = StreamDecoder(decoder, args.slots, args.max_batch, args.primed_cache_bytes, slots_changed)
    streams.warm_up()
    return streams


async def _audio(stream: Stream, chunk: FrameChunk) -> AudioChunk:
    pcm = await stream.decode(chunk.codes) if len(chunk.codes) else b""
    return AudioChunk(pcm, chunk.finish_reason, chunk.usage)


def _digest(codec: Path) -> str:
    """Content of a codec directory: its config and weights."""
    digest = hashlib.sha256()
    for file in sorted(codec.glob("*.json")) + sorted(codec.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
