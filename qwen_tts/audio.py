"""Audio in and out: any container to float samples, resampling, 16-bit PCM, and the WAV header."""

import base64
import binascii
import io
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr
from av.error import FFmpegError
from numpy.typing import NDArray

from qwen_tts.errors import InvalidRequest
from qwen_tts.fetch import fetch

Samples = NDArray[np.float32]

_HEADER_BYTES = 44

# FFmpeg's demuxers for self-contained files. Its playlist formats (hls, concat, dash, ...) would open the files and
# addresses that an upload names.
_CONTAINERS = (
    "aac,aiff,amr,asf,au,caf,flac,matroska,webm,mov,mp4,m4a,mp3,mpegts,ogg,opus,voc,w64,wav,wv,ape,tta,ac3,eac3"
)
# Patterns for the first 64 bytes of a file.
_MIME_TYPES = (
    (rb"RIFF....WAVE", "audio/wav"),
    (rb"OggS", "audio/ogg"),
    (rb"fLaC", "audio/flac"),
    (rb"....ftyp", "audio/mp4"),
    (rb"\x1a\x45\xdf\xa3.*webm", "audio/webm"),
    (rb"\xff[\xf0\xf1\xf8\xf9]", "audio/aac"),
    (rb"ID3|\xff[\xe2-\xff]", "audio/mpeg"),
)
_RATES_HZ = (4_000, 192_000)
# The most packets per second of audio. Some codecs use 400; a malicious file may hold one sample in each packet.
_PIECES_PER_S = 1000
_MAX_CHANNELS = 64
# A shorter string that is neither a path nor a URL is reported as a path that does not exist, not as bad base64.
_LEAST_BASE64 = 256

# The forms in which a caller may give audio: a path, a URL, base64, a data URL, or (samples, sample rate in Hz).
AudioSource = str | os.PathLike[str] | tuple[NDArray[np.generic], int]


@dataclass(frozen=True, eq=False)
class Clip:
    """Mono audio: samples [S] float32, full scale 1."""

    samples: Samples
    sample_rate_hz: int

    def __post_init__(self) -> None:
        assert self.samples.ndim == 1, self.samples.shape
        assert self.samples.dtype == np.float32, self.samples.dtype
        assert self.sample_rate_hz > 0, self.sample_rate_hz

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate_hz

    def resampled(self, sample_rate_hz: int) -> "Clip":
        """Resample. The result has ceil(S * new rate / old rate) samples, as with librosa."""
        if sample_rate_hz == self.sample_rate_hz:
            return self
        samples = soxr.resample(self.samples, self.sample_rate_hz, sample_rate_hz, quality="HQ")
        wanted = math.ceil(len(self.samples) * (sample_rate_hz / self.sample_rate_hz))
        return Clip(np.pad(samples[:wanted], (0, max(0, wanted - len(samples)))), sample_rate_hz)


def load_audio(source: AudioSource, max_s: float = math.inf) -> Clip:
    """Return mono audio from `source`. Raises InvalidRequest; `max_s` is passed to decode_audio."""
    if isinstance(source, tuple) and len(source) == 2:
        return _from_array(*source)
    if not isinstance(source, str | os.PathLike):
        raise _refusal(
            "must be a path, a URL, base64 text or a pair (samples, sample rate in Hz), not " + type(source).__name__
        )
    return decode_audio(_read(source), max_s)


def decode_audio(data: bytes, max_s: float = math.inf) -> Clip:
    """Decode a file in any container of _CONTAINERS to mono; channels are averaged.

    Raises InvalidRequest when the file is not audio, or as soon as more than `max_s` seconds have been decoded.
    """
    pieces: list[Samples] = []
    rate_hz, total = 0, 0
    try:
        for piece, rate_hz in _decoded(data):
            pieces.append(piece)
            total += len(piece)
            if total > max_s * rate_hz:
                raise _refusal(f"is longer than {max_s:g} s", "audio_too_long")
            if len(pieces) > max_s * _PIECES_PER_S:
                raise _refusal("has too many packets per second of audio", "invalid_audio")
    except (FFmpegError, ValueError, EOFError, OSError) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise _refusal("is not a readable audio file", "invalid_audio") from None
    if not total:
        raise _refusal("holds no audio", "invalid_audio")
    return _clip(np.concatenate(pieces), rate_hz)


def audio_type(data: bytes) -> str:
    """Return the MIME type of an audio file; "application/octet-stream" where browsers know no type."""
    known = (mime for begin, mime in _MIME_TYPES if re.match(begin, data[:64], re.DOTALL))
    return next(known, "application/octet-stream")


def decode_base64(text: str) -> bytes:
    """Decode base64 text, with or without "data:...;base64," before it. Raises InvalidRequest."""
    head, comma, body = text.partition(",")
    if comma and head.startswith("data:") and not head.endswith(";base64"):
        raise _refusal("is a data URL without ';base64'", "invalid_audio")
    try:
        encoded = body if head.startswith("data:") else text
        return base64.b64decode(encoded.replace("\r", "").replace("\n", ""), validate=True)  # many tools wrap the lines
    except (binascii.Error, ValueError):
        raise _refusal("is not valid base64", "invalid_audio") from None


def _read(source: str | os.PathLike[str]) -> bytes:
    if isinstance(source, str):
        if source.startswith(("http://", "https://")):
            data: bytes = fetch(source)
            return data
        if source.startswith("data:"):
            return decode_base64(source)
    try:
        return Path(source).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # no such file, a NUL in the name, or "~nobody"
        if isinstance(source, str) and len(source) > _LEAST_BASE64:
            return decode_base64(source)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _refusal(f"{os.fspath(source)!r} cannot be read: {reason}", "invalid_audio") from None


def _decoded(data: bytes) -> Iterator[tuple[Samples, int]]:
    """Yield mono pieces and their sample rate in Hz."""
    with av.open(io.BytesIO(data), mode="r", options={"format_whitelist": _CONTAINERS}) as container:
        if not container.streams.audio:
            return
        expected: int | None = None
        for frame in container.decode(container.streams.audio[0]):
            if expected is None:
                _check_rate(frame.sample_rate)
            elif expected != frame.sample_rate:
                raise _refusal("changes its sample rate within the file", "invalid_audio")
            expected = frame.sample_rate
            yield _mono(frame), frame.sample_rate


def _mono(frame: av.AudioFrame) -> Samples:
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if channels > _MAX_CHANNELS:
        raise _refusal(f"has {channels} channels", "invalid_audio")
    if frame.format.is_packed:
        samples = samples.reshape(-1, channels).T
    mono: Samples = _full_scale_1(samples).mean(axis=0, dtype=np.float32)
    return mono


def _full_scale_1(samples: NDArray[np.generic]) -> Samples:
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.signedinteger):
        return (samples.astype(np.float64) / 2.0 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32)
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype(np.float32)
    raise _refusal(f"has samples of type {samples.dtype}; give floats in [-1, 1] or signed integers", "invalid_audio")


def _from_array(samples: NDArray[np.generic], sample_rate_hz: int) -> Clip:
    """Convert an array to a clip. Of two axes, the shorter one is the channels."""
    if not isinstance(samples, np.ndarray) or samples.ndim not in (1, 2) or not samples.size:
        raise _refusal("must hold a non-empty array [S], [S, channels] or [channels, S]", "invalid_audio")
    mono = _full_scale_1(samples)
    if mono.ndim == 2:
        mono = mono.mean(axis=int(np.argmin(mono.shape)), dtype=np.float32)
    try:
        rate_hz = int(sample_rate_hz)
    except (TypeError, ValueError, OverflowError):
        rate_hz = None
    if isinstance(sample_rate_hz, bool) or rate_hz is None or rate_hz != sample_rate_hz:
        raise _refusal(f"has the sample rate {sample_rate_hz!r}; give whole Hz", "invalid_audio")
    return _clip(mono, rate_hz)


def _check_rate(sample_rate_hz: int) -> None:
    low, high = _RATES_HZ
    if not low <= sample_rate_hz <= high:
        raise _refusal(f"has a sample rate of {sample_rate_hz} Hz; it must be from {low} to {high} Hz", "invalid_audio")


def _clip(samples: Samples, sample_rate_hz: int) -> Clip:
    _check_rate(sample_rate_hz)
    if not np.isfinite(samples).all():
        raise _refusal("holds samples that are not finite numbers", "invalid_audio")
    return Clip(np.ascontiguousarray(samples), sample_rate_hz)


def _refusal(reason: str, code: str = "invalid_value") -> InvalidRequest:
    return InvalidRequest(f"ref_audio {reason}", "ref_audio", code)


def to_pcm16(samples: Samples) -> bytes:
    """Convert float samples in [-1, 1] to signed 16-bit little-endian bytes."""
    return (np.clip(samples, -1.0, 1.0) * 32767.0).round().astype("<i2").tobytes()


def wav_header(sample_rate_hz: int, data_bytes: int) -> bytes:
    """Return the 44-byte header of a RIFF WAVE file: mono, 16 bits, `data_bytes` of samples."""
    assert data_bytes % 2 == 0, "half a sample"
    block = 2  # bytes per sample
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate_hz, sample_rate_hz * block, block, 8 * block)
    riff = struct.pack("<4sI4s", b"RIFF", data_bytes + _HEADER_BYTES - 8, b"WAVE")
    return riff + fmt + struct.pack("<4sI", b"data", data_bytes)
