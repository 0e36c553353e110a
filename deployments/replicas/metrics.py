"""What the replicas observe in their metrics, which deployments/metrics.py declares."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deployments import metrics
from deployments.errors import loss_cause
from deployments.wire.messages import AudioChunk
from qwen_tts.engine.engine import Engine
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import InvalidRequest, Overloaded


class StreamMetrics:
    """Metrics of the streams of audio and of the decoder's slots."""

    def __init__(self) -> None:
        self._ttfa = metrics.TTFA.make()
        self._gap = metrics.CHUNK_GAP.make()
        self._headroom = metrics.HEADROOM.make()
        self._rtf = metrics.RTF.make()
        self._audio = metrics.AUDIO.make()
        self._underruns = metrics.UNDERRUNS.make()
        self._silence = metrics.UNDERRUN_SILENCE.make()
        self._in_use = metrics.DECODER_SLOTS_IN_USE.make()
        self._waiting = metrics.DECODER_WAITING.make()
        self._resumed = metrics.RESUMED.make()
        self._ended = metrics.STREAMS.make()

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
        self._running = metrics.SLOTS_IN_USE.make()
        self._waiting = metrics.WAITING.make()
        self._step = metrics.STEP.make()
        self._rows = metrics.STEP_ROWS.make()
        self._wait = metrics.QUEUE_WAIT.make()
        self._found = metrics.PREFIXES_REUSED.make()
        self._reused = metrics.PREFIX_ROWS_REUSED.make()

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
        self._batch = metrics.ENCODER_BATCH.make()

    def batch(self, references: int) -> None:
        """Note how many references were encoded together."""
        self._batch.observe(references)
