"""The record of one request. All its times come from the client's own clock."""

from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from loadtest.pcm_meter import PcmMeter
from loadtest.player import play
from loadtest.texts import Text


class Refusal(BaseModel):
    """An answer with an HTTP error.

    code: the `error.code` of the body, as in OpenAI's API; None if it has none. retry_after_s: the header Retry-After.
    """

    model_config = ConfigDict(frozen=True)

    status: int
    code: str | None
    retry_after_s: float | None


class Record(BaseModel):
    """The measurements of one request. Moments are seconds since the run began.

    scheduled_s: in an open loop, the moment when the request was due; in a closed loop, when it was sent. Every latency
    counts from this moment, so a delay by a stalled server or client is not hidden.
    silences: (moment, duration) of every time in which the simulated player had nothing to play.
    error: why there is no whole answer; None if there is one. The latencies of a request with an error mean nothing.
    refusal: the error, if it was an HTTP answer to the request for speech.
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
    heard_s: float | None = None  # the simulated player played that sample
    audio_s: float = 0.0
    silences: list[tuple[float, float]] = []
    finish_reason: str | None = None
    error: str | None = None
    refusal: Refusal | None = None
    words: str = Field("", exclude=True)
    pcm: bytes = Field(b"", exclude=True)  # of requests whose audio is kept
    rate_hz: int = Field(24000, exclude=True)

    @property
    def first_byte_ms(self) -> float:
        return 1000 * (self.chunks[0][0] - self.scheduled_s)

    @property
    def ttfa_ms(self) -> float:
        """The time until the first audible sample had arrived."""
        assert self.audible_s is not None, "a request without audible audio has an error"
        return 1000 * (self.audible_s - self.scheduled_s)

    @property
    def heard_ms(self) -> float:
        """The time until the first audible sample was played, with the start buffer and leading silence."""
        assert self.heard_s is not None, "a request without audible audio has an error"
        return 1000 * (self.heard_s - self.scheduled_s)

    @property
    def total_ms(self) -> float:
        return 1000 * (self.end_s - self.scheduled_s)

    @property
    def late_ms(self) -> float:
        """The delay between the scheduled time and sending, which the client itself caused."""
        return 1000 * (self.sent_s - self.scheduled_s)

    @property
    def rtf(self) -> float:
        """The real-time factor: the time from sending to the end, divided by the duration of the audio."""
        return (self.end_s - self.sent_s) / self.audio_s

    @property
    def gaps_ms(self) -> list[float]:
        """The times between consecutive chunks."""
        moments = [moment for moment, _ in self.chunks]
        return [1000 * (after - before) for before, after in pairwise(moments)]

    @property
    def underruns(self) -> int:
        return len(self.silences)

    @property
    def silence_s(self) -> float:
        return sum(duration for _, duration in self.silences)

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
    refusal: Refusal | None = None,
    start_buffer_s: float,
    keep: bool,
) -> Record:
    """Return the record of a request from the meter of its audio.

    times: when the request was due, was sent and had ended, in seconds since the run began, as the meter's times are.
    """
    scheduled, sent, end = times
    assert sent <= end, f"a request that was sent at {sent} s ended before, at {end} s"
    if error is None and meter.audible is None:
        error = "no audio" if not meter.pieces else "silent"
    record = Record(
        index=index, scenario=scenario, language=text.language, characters=len(text.words),
        scheduled_s=scheduled, sent_s=sent, end_s=end, chunks=meter.sizes, audio_s=meter.audio_s,
        finish_reason=finish_reason, error=error, refusal=refusal, words=text.words,
    )  # fmt: skip
    if meter.audible is None:
        return record
    arrived, position = meter.audible
    played = play(meter.pieces, start_buffer_s, end)
    heard = {
        "audible_s": arrived,
        "heard_s": played.heard_s(position),
        "silences": list(played.silences),
    }
    return record.model_copy(update=heard | ({"pcm": meter.pcm, "rate_hz": meter.rate_hz} if keep else {}))
