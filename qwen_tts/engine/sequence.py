"""One request on its way through the engine."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from qwen_tts.prompt import PromptLayout
from qwen_tts.request import FinishReason, SpeechRequest

Frame = tuple[int, ...]  # G codes

# Frames per chunk of a stream, the last size repeated: the first frame leaves at once, later ones in company,
# because every message between processes costs about a millisecond.
CHUNK_SCHEDULE: tuple[int, ...] = (1, 2, 4, 8)


def chunk_sizes(schedule: tuple[int, ...]) -> Iterator[int]:
    """Sizes of successive chunks, for ever."""
    yield from schedule[:-1]
    while True:
        yield schedule[-1]


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """A ledger: what was asked, what has come of it. The engine appends to `frames`; readers keep their own place."""

    request: SpeechRequest
    layout: PromptLayout
    max_frames: int
    status: Status = Status.WAITING
    slot: int | None = None
    rows_read: int = 0  # of the prompt
    frames: list[Frame] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    cancel_requested: bool = False
    queued_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None  # had a slot

    @property
    def position(self) -> int:
        """Where the next row goes in this sequence's KV cache: every frame but the newest has been read."""
        return len(self.layout) + max(len(self.frames) - 1, 0)

    @property
    def finished(self) -> bool:
        return self.status is Status.FINISHED
