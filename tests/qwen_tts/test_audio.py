"""PCM and WAV as other programs read them."""

import io
import wave

import numpy as np
import soundfile
from numpy.typing import NDArray

from qwen_tts.audio import to_pcm16, wav_header

RATE_HZ = 24000
SAMPLES = np.sin(np.arange(4801, dtype=np.float32) / 10) * np.float32(0.8)


def pcm(samples: list[float]) -> NDArray[np.int16]:
    return np.frombuffer(to_pcm16(np.array(samples, dtype=np.float32)), dtype="<i2")


def test_full_scale_is_symmetric_and_beyond_it_is_clipped() -> None:
    assert pcm([1.0, -1.0, 1.5, -7.0, 0.0]).tolist() == [32767, -32767, 32767, -32767, 0]


def test_samples_are_rounded_to_the_nearest_step() -> None:
    steps = np.array([0.4, 0.6, -0.4, -0.6, 100.4, -100.6]) / 32767
    assert pcm(steps.tolist()).tolist() == [0, 1, 0, -1, 100, -101]


def test_wav_is_read_by_the_standard_library_and_by_soundfile() -> None:
    data = to_pcm16(SAMPLES)
    header = wav_header(RATE_HZ, len(data))
    assert len(header) == 44

    with wave.open(io.BytesIO(header + data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE_HZ)
        assert file.getnframes() == len(SAMPLES)
        assert file.readframes(len(SAMPLES) + 1) == data

    samples, rate_hz = soundfile.read(io.BytesIO(header + data), dtype="int16")
    assert rate_hz == RATE_HZ
    np.testing.assert_array_equal(samples, np.frombuffer(data, dtype="<i2"))


def test_sizes_in_the_header() -> None:
    bytes_a_second, bytes_a_sample = wav_header(RATE_HZ, 100)[28:32], wav_header(RATE_HZ, 100)[32:34]
    assert bytes_a_second == (48000).to_bytes(4, "little"), "players pace a stream by it"
    assert bytes_a_sample == (2).to_bytes(2, "little")
    assert wav_header(RATE_HZ, 100)[4:8] == (136).to_bytes(4, "little"), "all bytes after this field"
    assert wav_header(RATE_HZ, 100)[40:] == (100).to_bytes(4, "little")
