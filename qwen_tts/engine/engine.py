"""The engine: requests go in, frames of codes come out. Each step is schedule, run, update."""

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qwen_tts.checkpoint import CODEC_DIRECTORY, resolve_checkpoint
from qwen_tts.config import (
    CodecConfig,
    GenerationDefaults,
    ModelConfig,
    check_codec,
    read_codec_config,
    read_generation_defaults,
    read_model_config,
)
from qwen_tts.engine.choose_passes import choose_passes
from qwen_tts.engine.live_text import MAX_CHARACTERS_PER_ROW, LiveText
from qwen_tts.engine.pace import Pace
from qwen_tts.engine.passes import MakePasses, PlainPasses
from qwen_tts.engine.pools import Pools
from qwen_tts.engine.prefix import PREFIX_CACHE_BYTES, shared_prefix
from qwen_tts.engine.runner import TalkerRunner
from qwen_tts.engine.scheduler import PREFILL_ROWS, Plan, Scheduler
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.errors import EngineStopped, InvalidRequest, RequestFailed
from qwen_tts.layers import select_attention
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.models.talker import Talker
from qwen_tts.prompt import PromptLayout, build_prompt
from qwen_tts.request import MIN_FRAMES, SpeechRequest, check_defaults, frame_limit
from qwen_tts.text import TextTokenizer

log = logging.getLogger(__name__)


class Engine:
    """Continuous batching over one talker. `add` and `cancel` may be called from any thread, `step` from one only."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: TextTokenizer,
        talker: Talker,
        *,
        slots: int,
        positions: int,
        max_waiting: int,
        max_frames: int,
        prefill_rows: int = PREFILL_ROWS,
        prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
        make_passes: MakePasses = PlainPasses,
    ) -> None:
        """slots: sequences that run at the same time. positions: prompt rows plus frames of one sequence, at most.
        max_waiting: requests that may wait for a slot. max_frames: of every request, 80 ms each.
        prefill_rows: rows of a prompt that one step reads. prefix_cache_bytes: of the keys and values that are kept for
        prompts that begin alike. make_passes: makes the passes from the talker, which then belongs to them.
        """
        self.config = config
        self.max_frames = max_frames
        self._tokenizer = tokenizer
        self._positions = positions
        pools = Pools.allocate(talker, slots, positions)
        passes = make_passes(talker, pools)
        self._runner = TalkerRunner(talker, pools, passes, config.tts_pad_token_id, prefix_cache_bytes)
        self._scheduler = Scheduler(slots, max_waiting, prefill_rows, known_rows=self._runner.known_rows)
        # Held during the scheduler's bookkeeping, never while anything is computed. Re-entrant, because the garbage
        # collector may close a forgotten stream in the middle of that bookkeeping, which cancels its sequence.
        self._lock = threading.RLock()
        self._stopped = False

    def add(self, request: SpeechRequest, frames: Iterable[Frame] = ()) -> Sequence:
        """Prepare and submit a request. Raises InvalidRequest, Overloaded or EngineStopped.

        `frames` exist already, because another engine made them for the same request. The sequence begins with them.
        Its further frames are those that the other engine would have made.
        """
        sequence = self.prepare(request, frames)
        self.submit(sequence)
        return sequence

    def prepare(self, request: SpeechRequest, frames: Iterable[Frame] = ()) -> Sequence:
        """Return the sequence of a request without queueing it. Raises InvalidRequest if the model cannot speak it."""
        _check_length(request, MAX_CHARACTERS_PER_ROW * self._positions)
        layout = build_prompt(self.config, self._tokenizer, request)
        rows = max(len(layout), len(layout.trailing_text_ids))
        if self._positions - rows < MIN_FRAMES:
            texts = " and ".join(name for name, text in request.texts.items() if text and name != "voice")
            raise InvalidRequest(
                f"{texts} too long: the prompt would take {rows} rows, and the model has room "
                f"for {self._positions - MIN_FRAMES}",
                "input",
                "input_too_long",
            )
        room = self._positions - len(layout)
        return self._sequence(request, layout, min(frame_limit(request, self.max_frames), room), frames)

    def live_text(self, request: SpeechRequest) -> LiveText:
        """Return the growing text of a request whose text is still being written. Nothing is queued yet.

        The request's own text is its beginning. Raises InvalidRequest if the model cannot speak the beginning.
        """
        request = replace(request, text_layout="streaming")
        self.prepare(request)
        return LiveText(self.config, self._tokenizer, request, positions=self._positions, max_frames=self.max_frames)

    def add_live(self, text: LiveText, frames: Iterable[Frame] = ()) -> Sequence:
        """Submit a request whose text is `ready` and may still grow. Raises Overloaded or EngineStopped.

        `frames` exist already, as for `add`. The text must be ready for them. The sequence pauses when it has spoken
        all the text there is. After writing more, the writer must make sure that `step` is called again.
        """
        layout = text.layout()
        sequence = self._sequence(text.request, layout, self._positions - len(layout), frames, text)
        self.submit(sequence)
        return sequence

    def _sequence(
        self,
        request: SpeechRequest,
        layout: PromptLayout,
        max_frames: int,
        frames: Iterable[Frame],
        text: LiveText | None = None,
    ) -> Sequence:
        prefix = shared_prefix(layout, self._scheduler.prefill_rows)
        made = list(frames)  # more than `max_frames` if the other engine had other settings
        return Sequence(request, layout, max(max_frames, len(made)), prefix, text, frames=made)

    def submit(self, sequence: Sequence) -> None:
        """Queue a prepared sequence. Raises Overloaded or EngineStopped before anything is computed."""
        with self._lock:
            if self._stopped:
                raise EngineStopped("the engine has stopped")
            self._scheduler.add(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """End `sequence` as cancelled. A running one leaves its slot when the next step is scheduled, or before.

        Does nothing if it has finished.
        """
        with self._lock:
            self._scheduler.cancel(sequence)

    def step(self) -> tuple[Sequence, ...]:
        """Make one frame for every running sequence whose prompt has been read. Return the sequences that moved.

        A sequence that cannot be computed fails alone. If nothing can be computed, or the step is interrupted, every
        sequence ends as cancelled and this raises.
        """
        try:
            with self._lock:
                plan = self._scheduler.schedule()
            self._run(plan)
        except BaseException:
            with self._lock:
                self._scheduler.abort()
            raise
        return tuple(sequence for sequence in plan.members if sequence in plan.sequences or sequence.finished)

    def _run(self, plan: Plan) -> None:
        """Run `plan` and book its results. If it raises, run it in halves until the sequences at fault are alone."""
        started = time.monotonic()
        try:
            frames = self._runner.run(plan)
        except Exception as error:  # of torch, of the device, or of our own: the parts tell whose fault it is
            match plan.members:
                case ():
                    raise
                case (sequence,):
                    self._fail(sequence, error)
                case members:
                    half = len(members) // 2
                    self._run(plan.part(members[:half]))
                    self._run(plan.part(members[half:]))
            return
        seconds = time.monotonic() - started
        for sequence in plan.sequences:
            if sequence.slot not in frames:
                self._runner.recover(sequence)
        with self._lock:
            if (pace := self._scheduler.pace) is not None and plan.running:
                pace.observe(plan.height, seconds, read=len(plan.rows) > 0)
            self._scheduler.update(plan, frames)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """End a sequence whose step raised `error`. Raises if the fault is not the sequence's."""
        self._runner.recover(sequence)
        log.error("a step of one request failed; other requests go on", exc_info=error)
        with self._lock:
            self._scheduler.fail(sequence, RequestFailed(f"the model failed at this request: {type(error).__name__}"))

    def keep_pace(self) -> None:
        """From now on let requests wait if running streams would otherwise get their frames too late to be played."""
        self._scheduler.pace = Pace(self._scheduler.clock)

    def stop(self) -> None:
        """Refuse further requests and end the present ones as cancelled. To be called by the thread that steps."""
        with self._lock:
            self._stopped = True
            self._scheduler.abort()

    @property
    def idle(self) -> bool:
        return self._scheduler.idle

    @property
    def running(self) -> int:
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def capacity(self) -> int:
        """The number of streams that can run in time, by the steps that have been seen."""
        with self._lock:
            return self._scheduler.capacity

    @property
    def least_headroom_s(self) -> float | None:
        """The least audio that a listener of a running stream has in hand. None if no listener plays."""
        with self._lock:
            return self._scheduler.least_headroom_s

    @property
    def half_idle(self) -> bool:
        with self._lock:
            return self._scheduler.half_idle

    def limit_waiting(self, most: int) -> None:
        """From now on refuse a request if `most` requests are waiting. Requests that wait already stay."""
        with self._lock:
            self._scheduler.max_waiting = most


def _check_length(request: SpeechRequest, most: int) -> None:
    """Refuse a text that cannot fit before it is tokenised: tokenising takes over a second per megabyte."""
    for param, text in request.texts.items():
        if len(text) > most:
            raise InvalidRequest(f"{param} has {len(text)} characters; the most is {most}", param, "input_too_long")


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory: its engine, its sampling defaults, and the configuration and directory of its codec."""

    engine: Engine
    defaults: GenerationDefaults
    codec_config: CodecConfig
    codec_directory: Path


def load_engine(
    name_or_path: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    attn_implementation: str,
    slots: int,
    positions: int,
    max_waiting: int,
    max_frames: int | None = None,
    int8: bool = False,
    compiled: bool = False,
    prefill_rows: int = PREFILL_ROWS,
    prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
) -> LoadedModel:
    """Load the checkpoint `name_or_path` and make an engine on it. Raises CheckpointError or UnsupportedError.

    max_frames: max_new_tokens of generation_config.json if None. int8: on a CPU, the products of the layers are of int8
    and the rest is `dtype`. compiled: native code on a CPU, which needs a C++ compiler and takes some seconds; CUDA
    graphs on a GPU, which takes minutes.
    """
    attend = select_attention(attn_implementation, device, dtype)
    make_passes = choose_passes(device, dtype, int8=int8, compiled=compiled)
    directory = resolve_checkpoint(name_or_path)
    config = read_model_config(directory)
    codec_config = read_codec_config(directory / CODEC_DIRECTORY)
    check_codec(config, codec_config)
    defaults = read_generation_defaults(directory)
    check_defaults(defaults)
    talker = load_talker(directory, config, attend, device, dtype)
    engine = Engine(
        config,
        TextTokenizer(directory, config),
        talker,
        slots=slots,
        positions=positions,
        max_waiting=max_waiting,
        max_frames=defaults.max_new_tokens if max_frames is None else max_frames,
        prefill_rows=prefill_rows,
        prefix_cache_bytes=prefix_cache_bytes,
        make_passes=make_passes,
    )
    return LoadedModel(engine, defaults, codec_config, directory / CODEC_DIRECTORY)
