"""What is known of one request, all of it from the client's own clock."""

from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from loadtest.pcm_meter import PcmMeter
from loadtest.player import play
from loadtest.texts import Text


class Record(BaseModel):
    """Moments are seconds since the run began. An open loop's `scheduled_s` is when the request should have been sent,
    and every latency counts from there, so that what a stalled server (or client) delays is not hidden; a closed
    loop's is when it was sent. `error` says why there is no whole answer, and then the latencies are not to be used.
    """

    model_config = ConfigDict(frozen=True)

    index: int
    scenario: str
    language: str
    characters: int
    scheduled_s: float
    sent_s: float
    end_s: float
    chunks: list[tuple[float, int]] = []  # (moment of arrival, bytes)
    audible_s: float | None = None  # the first audible sample arrived
    heard_s: float | None = None  # the simulated player played it
    audio_s: float = 0.0
    underruns: int = 0
    silence_s: float = 0.0
    finish_reason: str | None = None
    error: str | None = None
    words: str = Field("", exclude=True)
    pcm: bytes = Field(b"", exclude=True)  # of requests whose audio is kept
    rate_hz: int = Field(24000, exclude=True)

    @property
    def first_byte_ms(self) -> float:
        return 1000 * (self.chunks[0][0] - self.scheduled_s)

    @property
    def ttfa_ms(self) -> float:
        """Until the first audible sample had arrived."""
        assert self.audible_s is not None, "a request without audible audio has an error"
        return 1000 * (self.audible_s - self.scheduled_s)

    @property
    def heard_ms(self) -> float:
        """Until the first audible sample was played: with the start buffer and the silence before it."""
        assert self.heard_s is not None, "a request without audible audio has an error"
        return 1000 * (self.heard_s - self.scheduled_s)

    @property
    def total_ms(self) -> float:
        return 1000 * (self.end_s - self.scheduled_s)

    @property
    def late_ms(self) -> float:
        """For how long the client itself kept the request back."""
        return 1000 * (self.sent_s - self.scheduled_s)

    @property
    def rtf(self) -> float:
        """Time from sending to the end over the audio that came."""
        return (self.end_s - self.sent_s) / self.audio_s

    @property
    def gaps_ms(self) -> list[float]:
        """Between one chunk and the next."""
        moments = [moment for moment, _ in self.chunks]
        return [1000 * (after - before) for before, after in pairwise(moments)]

    @property
    def received_bytes(self) -> int:
        return sum(size for _, size in self.chunks)


def record_of(
    meter: PcmMeter,
    index: int,
    scenario: str,
    text: Text,
    *,
    times: tuple[float, float, float],
    finish_reason: str | None,
    error: str | None,
    start_buffer_s: float,
    keep: bool,
) -> Record:
    """`times` are those of the schedule, the sending and the end, on the listener's clock, whose zero is the run's."""
    scheduled, sent, end = times
    if error is None and meter.audible is None:
        error = "no audio" if not meter.pieces else "silent"
    record = Record(
        index=index, scenario=scenario, language=text.language, characters=len(text.words),
        scheduled_s=scheduled, sent_s=sent, end_s=end, chunks=meter.sizes, audio_s=meter.audio_s,
        finish_reason=finish_reason, error=error, words=text.words,
    )  # fmt: skip
    if meter.audible is None:
        return record
    arrived, position = meter.audible
    played = play(meter.pieces, start_buffer_s, end)
    heard = {
        "audible_s": arrived,
        "heard_s": played.heard_s(position),
        "underruns": played.underruns,
        "silence_s": played.silence_s,
    }
    return record.model_copy(update=heard | ({"pcm": meter.pcm, "rate_hz": meter.rate_hz} if keep else {}))
