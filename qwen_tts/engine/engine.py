"""The engine in three words: schedule, run, update. Text goes in as requests, codes come out as frames."""

import threading
from pathlib import Path

import torch

from qwen_tts.checkpoint import resolve_checkpoint
from qwen_tts.config import GenerationDefaults, ModelConfig, read_generation_defaults, read_model_config
from qwen_tts.engine.runner import MIN_FRAMES, TalkerRunner
from qwen_tts.engine.scheduler import Scheduler
from qwen_tts.engine.sequence import Sequence
from qwen_tts.errors import EngineStopped, InvalidRequest
from qwen_tts.layers import select_attention
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.models.talker import Talker
from qwen_tts.prompt import build_prompt
from qwen_tts.request import SpeechRequest, frame_limit
from qwen_tts.text import TextTokenizer


class Engine:
    """Continuous batching over one talker. `add` and `cancel` may be called from any thread, `step` from one.

    `max_frames` bounds every request (80 ms a frame), `positions` its prompt rows plus frames.
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
    ) -> None:
        self.config = config
        self.max_frames = max_frames
        self._tokenizer = tokenizer
        self._runner = TalkerRunner(talker, slots, positions, config.tts_pad_token_id)
        self._scheduler = Scheduler(slots, max_waiting)
        self._lock = threading.Lock()  # held over the scheduler's bookkeeping, never while the model runs
        self._stopped = False

    def add(self, request: SpeechRequest) -> Sequence:
        """Prepare and submit a request. Raises InvalidRequest, Overloaded or EngineStopped."""
        sequence = self.prepare(request)
        self.submit(sequence)
        return sequence

    def prepare(self, request: SpeechRequest) -> Sequence:
        """The sequence of a request, not queued yet. Raises InvalidRequest when this model cannot speak it."""
        layout = build_prompt(self.config, self._tokenizer, request)
        rows = max(len(layout), len(layout.trailing_text_ids))
        room = self._runner.positions - rows
        if room < MIN_FRAMES:
            raise InvalidRequest(
                f"input is too long: with its prompt it takes {rows} rows, and the model has room for "
                f"{self._runner.positions - MIN_FRAMES}",
                "input",
                "input_too_long",
            )
        return Sequence(request, layout, max_frames=min(frame_limit(request, self.max_frames), room))

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
        """One frame for every running sequence; returns the sequences that moved.

        A step that is interrupted ends every sequence as cancelled: half a step cannot be taken back.
        """
        with self._lock:
            plan = self._scheduler.schedule()
        try:
            frames = self._runner.run(plan)
        except BaseException:
            with self._lock:
                self._scheduler.abort()
            raise
        with self._lock:
            self._scheduler.update(plan, frames)
        return plan.sequences

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
) -> tuple[Engine, GenerationDefaults, Path]:
    """An engine on the checkpoint `name_or_path`, its sampling defaults and its directory.

    `max_frames` None takes max_new_tokens of generation_config.json. Raises CheckpointError or UnsupportedError.
    """
    attend = select_attention(attn_implementation, device, dtype)
    directory = resolve_checkpoint(name_or_path)
    config = read_model_config(directory)
    defaults = read_generation_defaults(directory)
    engine = Engine(
        config,
        TextTokenizer(directory, config),
        load_talker(directory, config, attend, device, dtype),
        slots=slots,
        positions=positions,
        max_waiting=max_waiting,
        max_frames=defaults.max_new_tokens if max_frames is None else max_frames,
    )
    return engine, defaults, directory
