"""16-bit PCM -> an audio file in any format offered, piece by piece. Knows nothing of HTTP."""

import io
import threading
from dataclasses import dataclass, field
from typing import Literal, get_args

import av
import numpy as np

from deployments.audio.filters import AudioFilter, Resampler, Samples16, Tempo, audio_frame
from qwen_tts.errors import InvalidRequest

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm", "mulaw", "alaw"]
DEFAULT_FORMAT: AudioFormat = "mp3"  # OpenAI's
SAMPLE_RATES_HZ = (8000, 16000, 22050, 24000, 44100, 48000)
SPEEDS = (0.25, 4.0)


@dataclass(frozen=True)
class _Format:
    """FFmpeg's names of a container and a codec, and what they are told."""

    media_type: str
    container: str
    codec: str
    bit_rate: int | None = None
    container_options: dict[str, str] = field(default_factory=dict)
    codec_options: dict[str, str] = field(default_factory=dict)
    sample_rates_hz: tuple[int, ...] = SAMPLE_RATES_HZ
    default_rate_hz: int | None = None  # instead of the model's own


_FORMATS: dict[AudioFormat, _Format] = {
    # No bit reservoir: a frame can be sent once it is made. No Xing frame: its lengths are known only at the end.
    "mp3": _Format(
        "audio/mpeg", "mp3", "libmp3lame", 64_000, {"id3v2_version": "0", "write_xing": "0"}, {"reservoir": "0"}
    ),
    # A page for each packet of 20 ms.
    "opus": _Format(
        "audio/ogg",
        "ogg",
        "libopus",
        48_000,
        {"page_duration": "20000"},
        {"frame_duration": "20"},
        sample_rates_hz=(8000, 16000, 24000, 48000),
    ),
    "aac": _Format("audio/aac", "adts", "aac", 64_000),
    "flac": _Format("audio/flac", "flac", "flac", codec_options={"frame_size": "960"}),
    "wav": _Format("audio/wav", "wav", "pcm_s16le"),
    "pcm": _Format("audio/pcm", "s16le", "pcm_s16le"),
    "mulaw": _Format("audio/basic", "mulaw", "pcm_mulaw", default_rate_hz=8000),
    "alaw": _Format("audio/x-alaw-basic", "alaw", "pcm_alaw", default_rate_hz=8000),
}
assert set(_FORMATS) == set(get_args(AudioFormat))
MEDIA_TYPES = {name: kind.media_type for name, kind in _FORMATS.items()}
# bitexact: no dates, no version, no random serial number. The same audio is the same file.
_CONTAINER_OPTIONS = {"fflags": "+bitexact", "flush_packets": "1"}


class AudioEncoder:
    """One file. `encode` gives what can be sent so far (perhaps nothing), `finish` the rest, `close` frees it early.

    `whole` keeps everything for `finish`, so that the headers of WAV and FLAC can say how long they are; otherwise the
    file is that of the pieces. Calls may come from any thread; after `close` they give nothing. Raises InvalidRequest.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        source_rate_hz: int,
        sample_rate_hz: int | None = None,
        speed: float = 1.0,
        *,
        whole: bool = False,
    ) -> None:
        kind = _FORMATS[audio_format]
        self.audio_format = audio_format
        self.media_type = kind.media_type
        self.speed = speed
        self.sample_rate_hz = sample_rate_hz if sample_rate_hz is not None else kind.default_rate_hz or source_rate_hz
        if self.sample_rate_hz not in kind.sample_rates_hz:
            rates = ", ".join(map(str, kind.sample_rates_hz))
            message = f"sample_rate is {self.sample_rate_hz}; {audio_format} is offered in {rates}"
            raise InvalidRequest(message, "sample_rate", "invalid_value")
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            message = f"speed is {speed}; it must be at least {SPEEDS[0]} and at most {SPEEDS[1]}"
            raise InvalidRequest(message, "speed", "out_of_range")
        self._filters: list[AudioFilter] = []
        if speed != 1.0:
            self._filters.append(Tempo(source_rate_hz, speed))
        if self.sample_rate_hz != source_rate_hz:
            self._filters.append(Resampler(source_rate_hz, self.sample_rate_hz))
        self._sink: _File | _Pipe = _File() if whole else _Pipe()
        options = _CONTAINER_OPTIONS | kind.container_options
        self._container = av.open(self._sink, "w", format=kind.container, container_options=options)
        stream = self._container.add_stream(
            kind.codec, rate=self.sample_rate_hz, layout="mono", options=kind.codec_options | {"flags": "+bitexact"}
        )
        assert isinstance(stream, av.AudioStream)
        if kind.bit_rate is not None:
            stream.bit_rate = kind.bit_rate
        self._stream: av.AudioStream = stream
        self._lock = threading.Lock()
        self._closed = False

    def encode(self, pcm: bytes) -> bytes:
        """pcm: whole samples, mono, little-endian, at the source's rate."""
        with self._lock:
            if self._closed:
                return b""
            samples: Samples16 = np.frombuffer(pcm, "<i2")
            for audio_filter in self._filters:
                samples = audio_filter.change(samples)
            self._write(samples)
            return self._sink.sendable()

    def finish(self) -> bytes:
        with self._lock:
            if self._closed:
                return b""
            rest = np.zeros(0, np.int16)
            for audio_filter in self._filters:
                rest = np.concatenate([audio_filter.change(rest), audio_filter.finish()])
            self._write(rest)
            self._container.mux(self._stream.encode(None))
            self._container.start_encoding()  # a file without a sample has a header too
            self._free()
            return self._sink.rest()

    def close(self) -> None:
        """Free the codec now: its objects refer to each other. Waits for a call that is under way (some ms)."""
        with self._lock:
            if not self._closed:
                self._free()

    def _write(self, samples: Samples16) -> None:
        if len(samples):
            self._container.mux(self._stream.encode(audio_frame(samples, self.sample_rate_hz)))

    def _free(self) -> None:
        self._closed = True
        self._container.close()
        self._filters.clear()
        del self._container, self._stream


class _Pipe:
    """A file that cannot seek, so that its writer does not count on it."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def sendable(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken

    rest = sendable


class _File(io.BytesIO):
    """A file whose beginning may change until its end is written."""

    def sendable(self) -> bytes:
        return b""

    def rest(self) -> bytes:
        return self.getvalue()
