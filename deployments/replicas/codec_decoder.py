"""CodecDecoder deployment: pulls frames from a talker and turns them into audio.

The decoder holds the talkers' handles because the stateful hop (about 5 MiB per stream) is then a local variable of
one coroutine: the stream stays with its state, and a cancelled caller cancels the talker through `finally`.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray.serve.handle import DeploymentHandle

from deployments.replicas.checkpoints import checkpoint_of
from deployments.replicas.metrics import StreamMetrics
from deployments.replicas.stream_decoder import Stream, StreamDecoder
from deployments.replicas.torch_process import apart, prepare_torch
from deployments.settings import CodecDecoderArgs, ModelArgs
from deployments.wire.messages import AudioChunk, FrameChunk, Load, ModelCard
from deployments.wire.start_states import report_start
from deployments.wire.streams import cancel, open_stream
from deployments.wire.text_inbox import InboxText
from qwen_tts.checkpoint import CODEC_DIRECTORY, DTYPES, resolve_checkpoint
from qwen_tts.codec.decoder import load_codec_decoder
from qwen_tts.config import read_codec_config
from qwen_tts.request import ClonedVoice, SpeechRequest

log = logging.getLogger("ray.serve")


class CodecDecoder:
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
                by_content[content] = apart(partial(_load, codec, device, args))
            self._decoders[model.name] = by_content[content]
        log.info("codec decoder ready: %d codec(s) on %s in %s", len(by_content), device, args.dtype)

    async def describe(self) -> list[ModelCard]:
        """Cards of all models, once every talker has loaded; first model first."""
        return list(await asyncio.gather(*(talker.describe.remote() for talker in self._talkers.values())))

    async def load(self) -> Load:
        loads = [decoder.load() for decoder in set(self._decoders.values())]
        return Load(
            slots=sum(load.slots for load in loads),
            used=sum(load.used for load in loads),
            waiting=sum(load.waiting for load in loads),
        )

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

        Raises what the talker raises, before the first chunk unless it dies later.
        """
        decoder = self._decoders[model]
        chunks = open_stream(self._talkers[model], "generate", request, rest)
        try:
            with self._metrics.stream(model, decoder.sample_rate_hz, request.ahead_s) as leave:
                first: FrameChunk = await anext(chunks)
                async with decoder.stream(request.ahead_s) as stream:
                    if isinstance(request.voice, ClonedVoice) and request.voice.prompt.ref_codes is not None:
                        await stream.prime(request.voice.prompt.ref_codes)
                    yield leave(await _audio(stream, first))
                    async for chunk in chunks:
                        yield leave(await _audio(stream, chunk))
        finally:
            cancel(chunks)


def _load(codec: Path, device: torch.device, args: CodecDecoderArgs) -> StreamDecoder:
    decoder = load_codec_decoder(codec, device, DTYPES[args.dtype])
    rate_hz = read_codec_config(codec).output_sample_rate
    streams = StreamDecoder(decoder, args.slots, args.max_batch, rate_hz, args.primed_cache_bytes)
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
