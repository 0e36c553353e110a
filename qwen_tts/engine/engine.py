"""The engine in three words: schedule, run, update. Text goes in as requests, codes come out as frames."""

import threading
import time
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
from qwen_tts.engine.scheduler import PREFILL_ROWS, Scheduler
from qwen_tts.engine.sequence import Sequence
from qwen_tts.errors import EngineStopped, InvalidRequest
from qwen_tts.layers import select_attention
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.models.talker import Talker
from qwen_tts.prompt import PromptLayout, build_prompt
from qwen_tts.request import MIN_FRAMES, SpeechRequest, check_defaults, frame_limit
from qwen_tts.text import TextTokenizer


class Engine:
    """Continuous batching over one talker. `add` and `cancel` may be called from any thread, `step` from one.

    `max_frames` bounds every request (80 ms a frame), `positions` its prompt rows plus frames; `prefill_rows` of a
    prompt are read in one step; `prefix_cache_bytes` of what prompts begin with are kept for the next that begin alike.
    """

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
        self.config = config
        self.max_frames = max_frames
        self._tokenizer = tokenizer
        self._positions = positions
        pools = Pools.allocate(talker, slots, positions)
        passes = make_passes(talker, pools)
        self._runner = TalkerRunner(talker, pools, passes, config.tts_pad_token_id, prefix_cache_bytes)
        self._scheduler = Scheduler(slots, max_waiting, prefill_rows, known_rows=self._runner.known_rows)
        # Held over the scheduler's bookkeeping, never while the model runs. Re-entrant, because the garbage collector
        # may close a forgotten stream, which cancels its sequence, in the middle of that bookkeeping.
        self._lock = threading.RLock()
        self._stopped = False

    def add(self, request: SpeechRequest) -> Sequence:
        """Prepare and submit a request. Raises InvalidRequest, Overloaded or EngineStopped."""
        sequence = self.prepare(request)
        self.submit(sequence)
        return sequence

    def prepare(self, request: SpeechRequest) -> Sequence:
        """The sequence of a request, not queued yet. Raises InvalidRequest when this model cannot speak it."""
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
        return self._sequence(request, layout, min(frame_limit(request, self.max_frames), room))

    def live_text(self, request: SpeechRequest) -> LiveText:
        """The text of a request that is still being written, and begins with the request's own. Nothing is queued yet.

        Raises InvalidRequest when this model cannot speak what there is.
        """
        request = replace(request, text_layout="streaming")
        self.prepare(request)
        return LiveText(self.config, self._tokenizer, request, positions=self._positions, max_frames=self.max_frames)

    def add_live(self, text: LiveText) -> Sequence:
        """Submit a request whose text is `ready` and may go on being written. It pauses where there is no text yet:
        who writes on must see to it that `step` is called again. Raises Overloaded or EngineStopped."""
        layout = text.layout()
        sequence = self._sequence(text.request, layout, self._positions - len(layout), text)
        self.submit(sequence)
        return sequence

    def _sequence(
        self, request: SpeechRequest, layout: PromptLayout, max_frames: int, text: LiveText | None = None
    ) -> Sequence:
        return Sequence(request, layout, max_frames, shared_prefix(layout, self._scheduler.prefill_rows), text)

    def submit(self, sequence: Sequence) -> None:
        """Queue a prepared sequence. Raises Overloaded or EngineStopped; nothing has been computed then."""
        with self._lock:
            if self._stopped:
                raise EngineStopped("the engine has stopped")
            self._scheduler.add(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Give up `sequence`; a running one leaves its slot at the latest when the next step is scheduled.

        Harmless when it has finished.
        """
        with self._lock:
            self._scheduler.cancel(sequence)

    def step(self) -> tuple[Sequence, ...]:
        """One frame for every running sequence whose prompt has been read; returns the sequences that moved.

        A step that is interrupted ends every sequence as cancelled: half a step cannot be taken back.
        """
        try:
            with self._lock:
                plan = self._scheduler.schedule()
            started = time.monotonic()
            frames = self._runner.run(plan)
            seconds = time.monotonic() - started
            with self._lock:
                if (pace := self._scheduler.pace) is not None and plan.running:
                    pace.observe(plan.height, seconds, read=len(plan.rows) > 0)
                self._scheduler.update(plan, frames)
        except BaseException:
            with self._lock:
                self._scheduler.abort()
            raise
        return plan.sequences

    def keep_pace(self) -> None:
        """From now on requests wait rather than give running streams their frames later than they are played."""
        self._scheduler.pace = Pace(self._scheduler.clock)

    def stop(self) -> None:
        """Refuse further requests and end the present ones as cancelled. Called by the thread that steps."""
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
    def half_idle(self) -> bool:
        with self._lock:
            return self._scheduler.half_idle


def _check_length(request: SpeechRequest, most: int) -> None:
    """Refuse, before tokenising it, what cannot fit: tokenising takes over a second per megabyte."""
    for param, text in request.texts.items():
        if len(text) > most:
            raise InvalidRequest(
                f"{param} has {len(text)} characters; it cannot have more than {most}", param, "input_too_long"
            )


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory: its engine, its sampling defaults, and where and what its codec is."""

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
    """An engine on the checkpoint `name_or_path`.

    `max_frames` None takes max_new_tokens of generation_config.json. With `int8`, on a CPU, the layers' products are of
    int8 and the rest is `dtype`. `compiled` computes with native code on a CPU, which takes a C++ compiler and some
    seconds, and decodes from CUDA graphs on a GPU, which takes minutes. Raises CheckpointError or UnsupportedError.
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
