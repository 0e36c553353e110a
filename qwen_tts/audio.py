"""Samples in other clothes: float to 16-bit PCM, and the WAV header before it."""

import struct

import numpy as np
from numpy.typing import NDArray

# RIFF and data sizes of a stream whose length is not known when its header is sent.
UNKNOWN_LENGTH = 0xFFFFFFFF
_HEADER_BYTES = 44


def to_pcm16(samples: NDArray[np.float32]) -> bytes:
    """float samples in [-1, 1] -> signed 16-bit little-endian bytes."""
    return (np.clip(samples, -1.0, 1.0) * 32767.0).round().astype("<i2").tobytes()


def wav_header(sample_rate_hz: int, data_bytes: int | None) -> bytes:
    """44-byte header of mono 16-bit PCM (RIFF WAVE); data_bytes None marks a stream of unknown length."""
    data = UNKNOWN_LENGTH if data_bytes is None else data_bytes
    riff = UNKNOWN_LENGTH if data_bytes is None else data_bytes + _HEADER_BYTES - 8
    block = 2  # bytes per sample
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate_hz, sample_rate_hz * block, block, 8 * block)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + fmt + struct.pack("<4sI", b"data", data)
