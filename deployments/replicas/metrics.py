"""The service's own Prometheus metrics: names, units and buckets. Serve has others.

Serve adds the labels of deployment and replica to a metric that is made within a replica.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ray.serve import metrics

from deployments.errors import loss_cause
from deployments.wire.messages import AudioChunk
from qwen_tts.engine.engine import Engine
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import InvalidRequest, Overloaded

_MS = [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0, 5120.0, 10240.0]
_RATIOS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.5, 2.0, 5.0]
_ROWS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
_MODEL = ("model",)


class StreamMetrics:
    """Metrics of the streams of audio and of the decoder's slots."""

    def __init__(self) -> None:
        def histogram(name: str, description: str, boundaries: list[float]) -> metrics.Histogram:
            return metrics.Histogram(f"qwen_tts_{name}", description, boundaries, _MODEL)

        self._ttfa = histogram("ttfa_ms", "Request received by the decoder until its first audio left.", _MS)
        self._gap = histogram("chunk_gap_ms", "Between two chunks of one stream.", _MS)
        self._headroom = histogram("headroom_ms", "Audio in a listener's hands when the next chunk leaves.", _MS)
        self._rtf = histogram("rtf", "Time a stream took over the audio it made.", _RATIOS)
        self._audio = metrics.Counter("qwen_tts_audio_s", "Audio made.", _MODEL)
        self._underruns = metrics.Counter("qwen_tts_underruns", "Chunks that came after the audio had run out.", _MODEL)
        self._silence = metrics.Counter("qwen_tts_underrun_ms", "Silence that listeners heard for it.", _MODEL)
        self._in_use = metrics.Gauge("qwen_tts_decoder_slots_in_use", "Streams that have a slot of the decoder.")
        self._waiting = metrics.Gauge(
            "qwen_tts_decoder_requests_waiting", "Streams that wait for a slot of the decoder."
        )
        causes = (*_MODEL, "cause")
        self._resumed = metrics.Counter(
            "qwen_tts_streams_resumed",
            "Streams that went on on another replica, by the loss of the one before.",
            causes,  # type: ignore[arg-type]  # typed as one key
        )
        ends = (*_MODEL, "finish_reason")
        self._ended = metrics.Counter(
            "qwen_tts_streams",
            "Streams, by how they ended.",
            ends,  # type: ignore[arg-type]  # typed as one key
        )

    def slots(self, in_use: int, waiting: int) -> None:
        """Note how many streams have a slot of the decoder and how many wait for one."""
        self._in_use.set(in_use)
        self._waiting.set(waiting)

    def resumed(self, model: str, error: BaseException) -> None:
        """Note that a stream goes on elsewhere, because `error` has told that its talker is lost."""
        self._resumed.inc(tags={"model": model, "cause": loss_cause(error)})

    @contextmanager
    def stream(self, model: str, playback: Playback) -> Iterator[Callable[[AudioChunk], AudioChunk]]:
        """Measure one stream. The function that this gives measures a chunk, once it is in `playback`, and returns it.

        If the listener has heard audio of the same speech before, the time of the first chunk is not measured.
        """
        tags, reason = {"model": model}, "cancelled"
        sent = _Sent()

        def observe(chunk: AudioChunk) -> AudioChunk:
            nonlocal reason, sent
            if chunk.pcm:
                sent = self._observe(playback, sent, tags)
            reason = chunk.finish_reason or reason
            return chunk

        try:
            yield observe
        except (InvalidRequest, Overloaded):
            reason = "refused"
            raise
        except Exception:
            reason = "error"
            raise
        finally:
            self._ended.inc(tags={**tags, "finish_reason": reason})
            if playback.sent:
                self._rtf.observe((time.monotonic() - playback.requested) / playback.sent, tags)

    def _observe(self, playback: Playback, before: "_Sent", tags: dict[str, str]) -> "_Sent":
        """Measure the chunk that `playback` has and `before` has not. Return what has been sent now."""
        assert playback.first_sent is not None, "a chunk is observed before it is sent"
        now, audio_s = time.monotonic(), playback.sent - before.audio_s
        assert audio_s > 0, "a chunk is observed twice"
        if before.last_s is None:
            if not playback.continues:
                self._ttfa.observe(1000 * (playback.first_sent - playback.requested), tags)
        else:
            self._headroom.observe(1000 * max(0.0, playback.headroom(now) - audio_s), tags)
            self._gap.observe(1000 * (now - before.last_s), tags)
        self._audio.inc(audio_s, tags)
        if playback.underruns > before.underruns:
            self._underruns.inc(playback.underruns - before.underruns, tags)
            self._silence.inc(1000 * (playback.silence - before.silence_s), tags)
        return _Sent(playback.sent, playback.underruns, playback.silence, now)


@dataclass(frozen=True)
class _Sent:
    """The totals of a playback when its latest chunk was measured."""

    audio_s: float = 0.0
    underruns: int = 0
    silence_s: float = 0.0
    last_s: float | None = None  # when that was


class EngineMetrics:
    """Metrics of one talker's engine."""

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._tags = {"model": model}
        self._running = metrics.Gauge("qwen_tts_slots_in_use", "Running sequences.", _MODEL)
        self._waiting = metrics.Gauge("qwen_tts_requests_waiting", "Requests waiting for a slot.", _MODEL)
        self._step = metrics.Histogram(
            "qwen_tts_step_ms", "One engine step: a frame for every row, rows of a prompt.", _MS, _MODEL
        )
        self._rows = metrics.Histogram("qwen_tts_step_rows", "Sequences that got a frame in a step.", _ROWS, _MODEL)
        self._wait = metrics.Histogram("qwen_tts_queue_wait_ms", "Request queued until it had a slot.", _MS, _MODEL)
        self._found = metrics.Counter("qwen_tts_prefixes_reused", "Prompts whose beginning was known.", _MODEL)
        self._reused = metrics.Counter("qwen_tts_prefix_rows_reused", "Rows that were not computed for it.", _MODEL)

    @contextmanager
    def step(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._step.observe(1000 * (time.monotonic() - started), self._tags)
        self._running.set(self._engine.running, self._tags)
        self._waiting.set(self._engine.waiting, self._tags)

    def rows(self, count: int) -> None:
        """Note how many sequences got a frame in a step."""
        if count:
            self._rows.observe(count, self._tags)

    def waited(self, seconds: float) -> None:
        """Note how long a sequence waited for its slot."""
        self._wait.observe(1000 * seconds, self._tags)

    def reused(self, rows: int) -> None:
        """Note how many rows of a sequence's prompt came from the prefix cache."""
        if rows:
            self._found.inc(tags=self._tags)
            self._reused.inc(rows, self._tags)


class EncoderMetrics:
    """Metrics of the codec encoder."""

    def __init__(self) -> None:
        self._batch = metrics.Histogram("qwen_tts_encoder_batch_size", "References encoded in one batch.", _ROWS)

    def batch(self, references: int) -> None:
        """Note how many references were encoded together."""
        self._batch.observe(references)
