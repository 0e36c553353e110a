"""One request in the engine: its prompt, its slot, its frames."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from qwen_tts.engine.live_text import LiveText
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.engine.prefix import Prefix
from qwen_tts.errors import RequestFailed
from qwen_tts.prompt import PromptLayout
from qwen_tts.request import FinishReason, SpeechRequest

Frame = tuple[int, ...]  # G codes

# Frames per chunk of a stream; the last size is repeated. The first frame is sent at once. Later ones are sent
# together, because every message between processes costs about a millisecond.
CHUNK_SCHEDULE: tuple[int, ...] = (1, 2, 4, 8)


def chunk_sizes(schedule: tuple[int, ...], first: int | None = None) -> Iterator[int]:
    """Yield the sizes of successive chunks without end. `first` replaces the schedule's first size and any smaller."""
    if first is not None:
        schedule = (first, *(size for size in schedule[1:-1] if size > first), schedule[-1])
    yield from schedule[:-1]
    while True:
        yield schedule[-1]


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """The ledger of one request. The engine appends to `frames`; each reader counts the frames that it has read."""

    request: SpeechRequest
    layout: PromptLayout
    max_frames: int
    prefix: Prefix | None = None
    text: LiveText | None = None  # if it was submitted before its text was complete
    status: Status = Status.WAITING
    slot: int | None = None
    rows_read: int = 0  # of the prompt, reused ones included
    rows_reused: int = 0  # found in the prefix cache and not computed
    frames: list[Frame] = field(default_factory=list)
    resumed_frames: int = 0  # the first of `frames`: another engine made them, and this one reads them in prefill
    finish_reason: FinishReason | None = None
    failure: RequestFailed | None = None  # if the reason is "failed"
    cancel_requested: bool = False
    queued_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None  # when it got its slot
    playback: Playback = field(init=False)  # as if every frame were sent at once, though chunks hold some back

    def __post_init__(self) -> None:
        self.playback = Playback(requested=self.queued_s, ahead=self.request.ahead_s)
        self.resumed_frames = len(self.frames)
        assert self.resumed_frames <= self.max_frames, "more frames exist than the sequence may have"

    @property
    def prefill_rows(self) -> int:
        """The rows that are read before this engine draws a frame: the prompt, and the frames that exist already."""
        return len(self.layout) + self.resumed_frames

    @property
    def position(self) -> int:
        """The position of the next row in this sequence's KV cache. Every frame but the newest has been read."""
        return len(self.layout) + max(len(self.frames) - 1, 0)

    @property
    def reading_to(self) -> int:
        """The end of the part of the rows that is being read: the prefix, the rest of the prompt, then the frames.

        So the rows of a prompt are read in the same pieces, whether the sequence is resumed or not.
        """
        if self.prefix is not None and self.rows_read < self.prefix.rows:
            return self.prefix.rows
        return len(self.layout) if self.rows_read < len(self.layout) else self.prefill_rows

    @property
    def text_row(self) -> int:
        """The row of the trailing text that the next decode step reads."""
        newest = len(self.frames) - 1
        return min(newest, len(self.layout.trailing_text_ids)) if self.text is None else newest

    def text_id(self, row: int) -> int | None:
        """The id of a row of the trailing text. None is tts_pad, or a row of a live text that is not certain yet."""
        if self.text is not None:
            return self.text.trailing(row)
        return int(self.layout.trailing_text_ids[row]) if row < len(self.layout.trailing_text_ids) else None

    @property
    def next_text_id(self) -> int | None:
        """The id of that row of a live text; None if it is not certain yet."""
        return None if self.text is None else self.text.trailing(self.text_row)

    @property
    def paused(self) -> bool:
        """Whether its next frame needs text that has not been written."""
        return self.text is not None and len(self.frames) > 0 and self.next_text_id is None

    @property
    def full(self) -> bool:
        """Whether it has all the frames that it may have."""
        most = self.max_frames if self.text is None else min(self.max_frames, self.text.max_frames)
        return len(self.frames) >= most

    def append(self, frame: Frame, now: float) -> None:
        """Add the newest frame, made at `now`."""
        assert not self.finished, "a frame for a sequence that has finished"
        assert not self.full, f"a frame beyond the {len(self.frames)} that the sequence may have"
        self.frames.append(frame)
        self.playback.send(FRAME_S, now)

    @property
    def finished(self) -> bool:
        return self.status is Status.FINISHED
