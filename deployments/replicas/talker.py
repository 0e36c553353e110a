"""The talker's deployment: one replica is one engine with one model."""

import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.replicas.checkpoints import checkpoint_of
from deployments.replicas.engine_thread import EngineThread
from deployments.replicas.health import Health
from deployments.replicas.metrics import EngineMetrics
from deployments.replicas.torch_process import in_own_thread, prepare_torch
from deployments.settings import ModelArgs, TalkerArgs, TracingArgs, faulty_settings_logged
from deployments.wire.callers import Callers, replica_name
from deployments.wire.heartbeat import Heartbeat, with_heartbeats
from deployments.wire.load import Load
from deployments.wire.messages import FrameChunk
from deployments.wire.start_states import report_start
from deployments.wire.text_inbox import InboxText
from deployments.wire.tracing import request_span, start_tracing
from qwen_tts.checkpoint import DTYPES
from qwen_tts.config import ModelConfig
from qwen_tts.engine.choose_passes import can_compile
from qwen_tts.engine.engine import Engine, LoadedModel, load_engine
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.errors import ConfigError, UnsupportedError
from qwen_tts.request import ClonedVoice, CustomVoice, DesignedVoice, SpeechRequest, Voice
from qwen_tts.voice import VoicePrompt

log = logging.getLogger("ray.serve")

_WARM_UP_FRAMES = 4
_WARM_UP_STREAMS = 3
_NICENESS = 5  # on top of the niceness of other processes


class TalkerDeployment:
    """Generates codes. The constructor returns when the model is loaded and warm."""

    def __init__(self, model: ModelArgs, args: TalkerArgs, tracing: TracingArgs) -> None:
        start_tracing(tracing.endpoint, tracing.sampling_ratio, "talker")
        device = prepare_torch(args)
        if device.type == "cpu":
            # Frames are made ahead of playback. Decoding and sending them must be on time, so they come first.
            os.nice(_NICENESS)
        _log_library()
        report_start("loading the weights")
        loaded, compiled = _load(model, args, device)
        self._name = replica_name()
        self._callers = Callers()
        self._args = args
        _check_type(model, loaded.engine.config)
        report_start("warming up")
        _start_pace(loaded.engine, model, args)
        self._health = Health()
        metrics = EngineMetrics(loaded.engine, model.name)
        self._engine = EngineThread(loaded.engine, args.chunk_schedule, self._health, metrics)
        self._health.watchdog.start(args.hang_timeout_s)
        self._latest_s = time.monotonic()  # the beginning or end of the latest stream; a replica starts for one
        how = f"{args.dtype}{', compiled' if compiled else ''}"
        log.info("talker of %s ready: %s slots on %s in %s", model.name, args.slots, device, how)

    def reconfigure(self, settings: Mapping[str, Mapping[str, object]]) -> None:
        """Accept changed live settings, by section. Serve calls this at the start, and after each change."""
        with faulty_settings_logged():
            self._engine.engine.limit_waiting(self._args.changed(settings.get("talker", {})).max_waiting)

    async def ready(self) -> None:
        """Return when the model has loaded, because Serve calls no replica before that."""

    async def has_room(self) -> bool:
        """Return whether half of this replica is idle, so that it may compute what no listener waits for yet."""
        return self._engine.engine.half_idle

    async def generate(
        self,
        request: SpeechRequest,
        rest: InboxText | None = None,
        frames: NDArray[np.int16] | None = None,
        caller: str | None = None,
        trace: str | None = None,
    ) -> AsyncIterator[FrameChunk | Heartbeat]:
        """Yield the frames of `request` on the chunk schedule, with heartbeats. `rest` is the inbox of a live text.

        `frames` [F, G] exist already, because another talker has made them. The further frames are those that it would
        have made. The stream ends when the replica `caller` is lost. `trace` is the caller's `traceparent`. Raises
        InvalidRequest, Overloaded, RequestFailed or EngineStopped.
        """
        made = [] if frames is None else [tuple(frame) for frame in frames.tolist()]
        chunks = self._engine.generate(request, None if rest is None else rest.pieces(), made)
        self._latest_s = time.monotonic()
        with request_span("generate", trace):
            async with aclosing(with_heartbeats(chunks, self._name, self._callers, caller)) as beating:
                async for chunk in beating:
                    yield chunk
        self._latest_s = time.monotonic()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load of this replica. Serve calls this periodically if the deployment scales with its load."""
        engine = self._engine.engine
        idle_s = time.monotonic() - self._latest_s
        return Load(engine.capacity, engine.running, engine.waiting, engine.least_headroom_s, idle_s).stats()

    def check_health(self) -> None:
        """Raise EngineStopped if Serve must replace this replica. Serve calls this periodically."""
        self._health.check()


def _log_library() -> None:
    """Let the library's messages into the replica's log: they tell how far capturing graphs has come."""
    library = logging.getLogger("qwen_tts")
    library.setLevel(logging.INFO)
    for handler in log.handlers:
        library.addHandler(handler)


def _load(model: ModelArgs, args: TalkerArgs, device: torch.device) -> tuple[LoadedModel, bool]:
    """The engine, and whether it computes with compiled code."""
    dtype = torch.bfloat16 if args.dtype == "int8" else DTYPES[args.dtype]
    compiled = can_compile(device, dtype) if args.compile is None else args.compile
    load = partial(
        load_engine,
        checkpoint_of(model),
        device=device,
        dtype=dtype,
        int8=args.dtype == "int8",
        prefill_rows=args.prefill_rows,
        prefix_cache_bytes=args.prefix_cache_bytes,
        attn_implementation=args.attn_implementation,
        slots=args.slots,
        positions=args.positions,
        max_waiting=args.max_waiting,
        max_frames=args.max_frames,
    )
    try:
        return in_own_thread(partial(load, compiled=compiled)), compiled
    except UnsupportedError as error:
        if args.compile is not None or not compiled:
            raise
        log.warning("%s; %s computes in plain torch", error, model.name)  # a compiler that does not know C++20
        return in_own_thread(partial(load, compiled=False)), False


def _check_type(model: ModelArgs, config: ModelConfig) -> None:
    """Raise ConfigError for a model of another type than the settings say."""
    if model.type not in (None, config.tts_model_type):
        raise ConfigError(
            f"model {model.name} is of type {config.tts_model_type!r}, but its settings say {model.type!r}"
        )


def _start_pace(engine: Engine, model: ModelArgs, args: TalkerArgs) -> None:
    """Warm the engine up. Let it keep pace if the settings say so and if one stream is in time."""
    warm_up = partial(_warm_up, engine, min(args.slots, _WARM_UP_STREAMS), args.prefill_rows)
    step_s = in_own_thread(warm_up)
    if args.keep_pace and step_s <= FRAME_S:
        engine.keep_pace()
        in_own_thread(warm_up)  # the engine learns how long steps take
    elif args.keep_pace:
        log.info(
            "%s takes %.0f ms a frame for one stream, which is not real time: keep_pace does nothing",
            model.name,
            1000 * step_s,
        )


def _warm_up(engine: Engine, streams: int, prefill_rows: int) -> float:
    """Generate a few frames of one stream and of some together, so that no caller waits for what happens once.

    Return how long a step of one stream takes, in seconds.
    """
    config = engine.config
    voice: Voice
    match config.tts_model_type:
        case "custom_voice":
            voice = CustomVoice(config.speakers[0])
        case "voice_design":
            voice = DesignedVoice("A calm voice.")
        case "base":
            voice = ClonedVoice(VoicePrompt(np.zeros(config.talker_config.hidden_size, dtype=np.float32)))
    steps = [0.0]
    for together in (1, streams, 1):
        request = SpeechRequest(text="Warm up.", voice=voice, seed=0, max_frames=_WARM_UP_FRAMES)
        pieces = -(-len(engine.prepare(request).layout) // prefill_rows)
        for _ in range(together):  # the first stream goes on until the last one has read its prompt
            engine.add(replace(request, max_frames=_WARM_UP_FRAMES + together * pieces))
        while not engine.idle:
            started = time.monotonic()
            engine.step()
            steps.append(time.monotonic() - started)
    return min(steps[-3:])
