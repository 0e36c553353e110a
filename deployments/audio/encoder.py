"""The encoder from 16-bit PCM to an audio file in any offered format, piece by piece. It knows nothing of HTTP."""

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
    """FFmpeg's names of a container and a codec, with their options."""

    media_type: str
    container: str
    codec: str
    bit_rate: int | None = None
    container_options: dict[str, str] = field(default_factory=dict)
    codec_options: dict[str, str] = field(default_factory=dict)
    sample_rates_hz: tuple[int, ...] = SAMPLE_RATES_HZ
    default_rate_hz: int | None = None  # None: the rate of the source


_FORMATS: dict[AudioFormat, _Format] = {
    # No bit reservoir: a frame can be sent as soon as it is made. No Xing frame: the lengths in it would be known only
    # at the end.
    "mp3": _Format(
        "audio/mpeg", "mp3", "libmp3lame", 64_000, {"id3v2_version": "0", "write_xing": "0"}, {"reservoir": "0"}
    ),
    # One Ogg page for each packet of 20 ms, so that every packet can be sent at once.
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
assert set(_FORMATS) == set(get_args(AudioFormat)), "a format has no FFmpeg names, or is not offered"
MEDIA_TYPES = {name: kind.media_type for name, kind in _FORMATS.items()}
# bitexact: no dates, versions or random serial numbers, so the same audio always gives the same file.
_CONTAINER_OPTIONS = {"fflags": "+bitexact", "flush_packets": "1"}


def file_rate_hz(audio_format: AudioFormat, source_rate_hz: int, sample_rate_hz: int | None, speed: float) -> int:
    """Return the sample rate of a file: the wanted one, or the default. Raises InvalidRequest."""
    kind = _FORMATS[audio_format]
    rate_hz = sample_rate_hz if sample_rate_hz is not None else kind.default_rate_hz or source_rate_hz
    if rate_hz not in kind.sample_rates_hz:
        rates = ", ".join(map(str, kind.sample_rates_hz))
        message = f"sample_rate is {rate_hz}; with {audio_format} it must be one of {rates}"
        raise InvalidRequest(message, "sample_rate", "invalid_value")
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        message = f"speed is {speed}; it must be at least {SPEEDS[0]} and at most {SPEEDS[1]}"
        raise InvalidRequest(message, "speed", "out_of_range")
    return rate_hz


class AudioEncoder:
    """The encoder of one file. Its methods may be called from any thread.

    `encode` returns the bytes that can be sent so far (perhaps none), `finish` returns the rest, `close` frees the
    codec early. After `close` the methods return nothing. With `whole`, all bytes come from `finish`, so that the
    headers of WAV and FLAC can contain the length. The constructor raises InvalidRequest.
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
        self.sample_rate_hz = file_rate_hz(audio_format, source_rate_hz, sample_rate_hz, speed)
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
        assert isinstance(stream, av.AudioStream), f"{kind.codec} is not a codec of audio"
        if kind.bit_rate is not None:
            stream.bit_rate = kind.bit_rate
        self._stream: av.AudioStream = stream
        self._lock = threading.Lock()
        self._closed = False

    def encode(self, pcm: bytes) -> bytes:
        """Encode whole samples of 16 bits, mono, little-endian, at the source's rate; return what can be sent."""
        assert len(pcm) % 2 == 0, f"{len(pcm)} bytes end in the middle of a sample"
        with self._lock:
            if self._closed:
                return b""
            samples: Samples16 = np.frombuffer(pcm, "<i2")
            for audio_filter in self._filters:
                samples = audio_filter.change(samples)
            self._write(samples)
            return self._sink.sendable()

    def finish(self) -> bytes:
        """Return the rest of the file, and close the encoder."""
        with self._lock:
            if self._closed:
                return b""
            rest = np.zeros(0, np.int16)
            for audio_filter in self._filters:
                rest = np.concatenate([audio_filter.change(rest), audio_filter.finish()])
            self._write(rest)
            self._container.mux(self._stream.encode(None))
            self._container.start_encoding()  # writes the header, also of a file without samples
            self._free()
            return self._sink.rest()

    def close(self) -> None:
        """Free the codec now. Its objects refer to each other, so the garbage collector would free them only later.

        Waits for a call that is under way (some ms).
        """
        with self._lock:
            if not self._closed:
                self._free()

    def _write(self, samples: Samples16) -> None:
        if len(samples):
            self._container.mux(self._stream.encode(audio_frame(samples, self.sample_rate_hz)))

    def _free(self) -> None:
        assert not self._closed, "the codec is freed twice"
        self._closed = True
        self._container.close()
        self._filters.clear()
        del self._container, self._stream


class _Pipe:
    """An output that cannot seek, so FFmpeg does not change bytes that have been sent."""

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
    """An output that can seek: FFmpeg may change its beginning until the end is written."""

    def sendable(self) -> bytes:
        return b""

    def rest(self) -> bytes:
        return self.getvalue()
