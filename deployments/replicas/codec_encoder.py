"""The codec encoder's deployment: it turns reference recordings into the voices that a Base model speaks with."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from deployments.replicas.batcher import Batcher, first_come
from deployments.replicas.checkpoints import checkpoint_of
from deployments.replicas.health import Health
from deployments.replicas.metrics import EncoderMetrics
from deployments.replicas.torch_process import adopt_threads, in_own_thread, prepare_torch
from deployments.settings import CodecEncoderArgs, ModelArgs, faulty_settings_logged
from deployments.wire.load import Load
from deployments.wire.start_states import report_start
from qwen_tts.audio import Clip, decode_audio
from qwen_tts.checkpoint import resolve_checkpoint
from qwen_tts.config import read_model_config
from qwen_tts.errors import InvalidRequest, Overloaded
from qwen_tts.reference_audio import LONGEST_S, check_reference
from qwen_tts.voice import EncodedReference
from qwen_tts.voice_encoder import VoiceEncoder, load_voice_encoder

log = logging.getLogger("ray.serve")

_READERS = 2  # threads that decode audio files while the model is busy


@dataclass(frozen=True)
class _ReferenceClip:
    model: str
    clip: Clip


class CodecEncoderDeployment:
    """Has the speaker encoder of every Base model of the application, and the encoders of their codecs."""

    def __init__(self, models: tuple[ModelArgs, ...], args: CodecEncoderArgs) -> None:
        device = prepare_torch(args)
        report_start("loading the weights")
        self._encoders: dict[str, VoiceEncoder] = {}
        for model in models:
            directory = resolve_checkpoint(checkpoint_of(model))
            if read_model_config(directory).tts_model_type == "base":
                self._encoders[model.name] = in_own_thread(partial(load_voice_encoder, directory, device))
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="audio-reader")
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codec-encoder", initializer=adopt_threads)
        self._health = Health()
        self._batcher = Batcher(self._encode, thread, first_come(args.max_batch), self._health, self._probe)
        self._metrics = EncoderMetrics()
        self._args = args
        self._max_waiting = args.max_waiting
        self._under_way = 0
        self._health.watchdog.start(args.hang_timeout_s)
        log.info("codec encoder ready: %s on %s", ", ".join(self._encoders) or "no model clones", device)

    def reconfigure(self, settings: Mapping[str, Mapping[str, object]]) -> None:
        """Accept changed live settings, by section. Serve calls this at the start, and after each change."""
        with faulty_settings_logged():
            self._max_waiting = self._args.changed(settings.get("codec_encoder", {})).max_waiting

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load of this replica. Serve calls this periodically if the deployment scales with its load."""
        running = min(self._under_way, self._args.max_batch)
        return Load(self._args.max_batch, running, self._under_way - running).stats()

    async def describe(self) -> dict[str, str]:
        """Return the fingerprint of every Base model's voice space, by the model's name."""
        return {name: encoder.fingerprint for name, encoder in self._encoders.items()}

    async def encode(self, model: str, audio: bytes, *, check: bool = True) -> EncodedReference:
        """Encode the speaker in `audio` for `model`. `audio` is a file in any container.

        With `check`, a recording that is unfit for cloning is refused. Raises InvalidRequest or Overloaded.
        """
        if model not in self._encoders:
            raise InvalidRequest(f"model {model!r} does not clone voices", "model", "voice_not_supported")
        if self._under_way >= self._max_waiting:
            raise Overloaded(f"{self._under_way} reference recordings are waiting; try again later")
        self._under_way += 1
        try:
            rate_hz = self._encoders[model].sample_rate_hz
            clip = await asyncio.get_running_loop().run_in_executor(self._readers, _read, audio, rate_hz, check)
            return await self._batcher.submit(_ReferenceClip(model, clip))
        finally:
            self._under_way -= 1
            assert self._under_way >= 0, "more references ended than began"

    def check_health(self) -> None:
        """Raise EngineStopped if Serve must replace this replica. Serve calls this periodically."""
        self._health.check()

    def _encode(self, clips: Sequence[_ReferenceClip]) -> list[EncodedReference]:
        self._metrics.batch(len(clips))
        encoded: dict[int, EncodedReference] = {}
        for model in {clip.model for clip in clips}:
            indices = [index for index, clip in enumerate(clips) if clip.model == model]
            with self._health.watchdog.computing():
                results = self._encoders[model].encode([clips[index].clip for index in indices])
            encoded.update(zip(indices, results, strict=True))
        return [encoded[index] for index in range(len(clips))]

    def _probe(self) -> None:
        """Encode a second of silence for every model. Raises if that is not possible."""
        for encoder in self._encoders.values():
            with self._health.watchdog.computing():
                encoder.encode([Clip(np.zeros(encoder.sample_rate_hz, np.float32), encoder.sample_rate_hz)])


def _read(audio: bytes, rate_hz: int, check: bool) -> Clip:
    clip = decode_audio(audio, LONGEST_S)
    if check:
        check_reference(clip)
    return clip.resampled(rate_hz)
