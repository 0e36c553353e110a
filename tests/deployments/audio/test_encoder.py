"""Every format: the file does not depend on how its samples are cut into pieces, and other programs can read it."""

import contextlib
import gc
import io
import wave
from collections.abc import Iterator
from typing import get_args

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.audio.encoder import SAMPLE_RATES_HZ, AudioEncoder, AudioFormat
from qwen_tts.errors import InvalidRequest
from tests.audio_files import HEADERLESS, Decoded, decoded, read_by_libsndfile

SOURCE_HZ = 24000
FRAME_SAMPLES = 1920
FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)
LOSSLESS = ("wav", "pcm", "flac")
SOON = ("mp3", "opus")
CASES = [(name, hz) for name in FORMATS for hz in SAMPLE_RATES_HZ if name != "opus" or hz not in (22050, 44100)]


def tone(hz: float, seconds: float = 1.2) -> NDArray[np.int16]:
    """Return a sine that swells and fades."""
    time_s = np.arange(round(seconds * SOURCE_HZ)) / SOURCE_HZ
    loudness = np.sin(np.pi * time_s / seconds) * 12000
    samples: NDArray[np.int16] = (np.sin(2 * np.pi * hz * time_s) * loudness).round().astype("<i2")
    return samples


TONE = tone(440)


def cut(samples: NDArray[np.int16], sizes: list[int]) -> Iterator[bytes]:
    """Yield pieces of `sizes`, repeated until the end."""
    start = 0
    while start < len(samples):
        for size in sizes:
            yield samples[start : start + size].tobytes()
            start += size


def file_of(encoder: AudioEncoder, pieces: Iterator[bytes]) -> bytes:
    return b"".join([*(encoder.encode(piece) for piece in pieces), encoder.finish()])


def pitch_hz(audio: Decoded) -> float:
    spectrum = np.abs(np.fft.rfft(audio.samples * np.hanning(len(audio.samples))))
    return float(spectrum.argmax() / audio.seconds)


def most_excess_s(name: str, rate_hz: int) -> float:
    """Return how much longer a file may be than its speech.

    MP3 and ADTS have no field for the samples that their encoders add at both ends (LAME 1105 samples and a frame of
    576, AAC two frames of 1024). At low rates this is more than 80 ms.
    """
    own = {"mp3": 1105 + 622, "aac": 2 * 1024}.get(name, 0)
    return max(0.08, own / rate_hz)


@pytest.mark.parametrize(("name", "rate_hz"), CASES)
def test_other_programs_read_it(name: AudioFormat, rate_hz: int) -> None:
    pieces = list(cut(TONE, [FRAME_SAMPLES]))
    streamed = file_of(AudioEncoder(name, SOURCE_HZ, rate_hz), iter(pieces))
    whole = file_of(AudioEncoder(name, SOURCE_HZ, rate_hz, whole=True), iter(pieces))
    audio, audio_of_whole = decoded(streamed, name, rate_hz), decoded(whole, name, rate_hz)
    assert (audio.samples == audio_of_whole.samples).all()
    # Ogg Opus records the rate of its source; a decoder returns samples at that rate, or at Opus's own.
    assert audio.sample_rate_hz in ((rate_hz, 48000) if name == "opus" else (rate_hz,))
    assert audio.channels == 1
    assert 0 <= audio.seconds - len(TONE) / SOURCE_HZ <= most_excess_s(name, rate_hz)
    assert pitch_hz(audio) == pytest.approx(440, abs=2)
    loudness = np.abs(audio.samples.astype(int)).max()
    assert loudness == pytest.approx(12000, rel=0.1)
    if name not in (*HEADERLESS, "aac"):
        other = read_by_libsndfile(whole)
        assert other.sample_rate_hz in ((rate_hz, 48000) if name == "opus" else (rate_hz,))
        assert other.seconds == pytest.approx(audio.seconds, abs=0.001 if name != "opus" else 0.01)
        assert pitch_hz(other) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sizes", [[1, 7, 480, 3333], [len(TONE)]], ids=["odd pieces", "one piece"])
def test_any_cutting_gives_the_same_file(name: AudioFormat, sizes: list[int]) -> None:
    for rate_hz, speed in ((None, 1.0), (16000, 1.3)):
        by_frames = file_of(AudioEncoder(name, SOURCE_HZ, rate_hz, speed), cut(TONE, [FRAME_SAMPLES]))
        assert file_of(AudioEncoder(name, SOURCE_HZ, rate_hz, speed), cut(TONE, sizes)) == by_frames


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_lose_nothing(name: AudioFormat) -> None:
    file = file_of(AudioEncoder(name, SOURCE_HZ), cut(TONE, [FRAME_SAMPLES]))
    assert (decoded(file, name, SOURCE_HZ).samples == TONE).all()


@pytest.mark.parametrize("name", ["wav", "flac"])
def test_a_whole_file_says_how_long_it_is(name: AudioFormat) -> None:
    whole = AudioEncoder(name, SOURCE_HZ, whole=True)
    assert whole.encode(TONE.tobytes()) == b""
    file = whole.finish()
    assert (read_by_libsndfile(file).samples == TONE).all()
    if name == "wav":
        with wave.open(io.BytesIO(file)) as read:
            assert read.getnframes() == len(TONE)
    with av.open(io.BytesIO(file)) as container:
        stream = container.streams.audio[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base == pytest.approx(len(TONE) / SOURCE_HZ)


@pytest.mark.parametrize("speed", [0.25, 0.4, 0.5, 0.8, 1.25, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("rate_hz", [SOURCE_HZ, 8000])
def test_speed_changes_the_duration_and_not_the_pitch(speed: float, rate_hz: int) -> None:
    audio = decoded(file_of(AudioEncoder("wav", SOURCE_HZ, rate_hz, speed), cut(TONE, [FRAME_SAMPLES])), "wav", rate_hz)
    assert audio.seconds == pytest.approx(len(TONE) / SOURCE_HZ / speed, abs=0.08)
    assert pitch_hz(audio) == pytest.approx(440, abs=5)


@pytest.mark.parametrize(("name", "rate_hz"), [case for case in CASES if case[0] in SOON and case != ("mp3", 8000)])
def test_the_first_bytes_leave_soon(name: AudioFormat, rate_hz: int) -> None:
    """The first bytes come at most one frame of speech (80 ms) after those of PCM, and contain audible samples.

    LAME first needs three of its frames, which are 216 ms at 8 kHz.
    """

    def frames_until_audio(encoder: AudioEncoder) -> int:
        sent = b""
        for number, piece in enumerate(cut(TONE, [FRAME_SAMPLES]), 1):
            sent += encoder.encode(piece)
            with contextlib.suppress(ValueError):
                if len(decoded(sent, name, rate_hz).samples):
                    return number
        raise AssertionError("nothing came")

    pcm = AudioEncoder("pcm", SOURCE_HZ, rate_hz)
    assert pcm.encode(TONE[:FRAME_SAMPLES].tobytes()), "PCM leaves with the first frame"
    assert frames_until_audio(AudioEncoder(name, SOURCE_HZ, rate_hz)) <= 2


def test_telephony_is_8_khz_and_the_rest_the_model_s_rate_unless_asked() -> None:
    rates = {name: AudioEncoder(name, SOURCE_HZ).sample_rate_hz for name in FORMATS}
    assert {name for name, rate_hz in rates.items() if rate_hz == 8000} == {"mulaw", "alaw"}
    assert set(rates.values()) == {8000, SOURCE_HZ}
    seconds = len(TONE) / SOURCE_HZ
    assert len(file_of(AudioEncoder("mulaw", SOURCE_HZ), cut(TONE, [FRAME_SAMPLES]))) == round(seconds * 8000)


@pytest.mark.parametrize(
    ("name", "rate_hz", "speed", "param", "words"),
    [
        ("opus", 44100, 1.0, "sample_rate", ["44100", "opus", "8000, 16000, 24000, 48000"]),
        ("mp3", 96000, 1.0, "sample_rate", ["96000", "mp3", "8000, 16000, 22050, 24000, 44100, 48000"]),
        ("wav", 0, 1.0, "sample_rate", ["0", "48000"]),
        ("wav", None, 0.24, "speed", ["0.24", "0.25", "4.0"]),
        ("wav", None, 4.5, "speed", ["4.5", "0.25", "4.0"]),
    ],
)
def test_refusals(name: AudioFormat, rate_hz: int | None, speed: float, param: str, words: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        AudioEncoder(name, SOURCE_HZ, rate_hz, speed)
    assert refused.value.param == param
    assert all(word in refused.value.message for word in words)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_without_a_sample_is_a_file(name: AudioFormat) -> None:
    encoder = AudioEncoder(name, SOURCE_HZ, 16000, 2.0)
    assert encoder.encode(b"") == b""
    file = encoder.finish()
    if name == "wav":
        with wave.open(io.BytesIO(file)) as read:
            assert (read.getframerate(), read.readframes(100)) == (16000, b"")


@pytest.mark.parametrize("name", FORMATS)
def test_closing_frees_the_codec_at_once(name: AudioFormat) -> None:
    kinds = (av.container.OutputContainer, av.AudioCodecContext, av.AudioStream, av.filter.Graph)

    def alive() -> int:
        return sum(type(thing) in kinds for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        encoder = AudioEncoder(name, SOURCE_HZ, 16000, 1.5)
        encoder.encode(TONE.tobytes())
        assert alive() > before
        encoder.close()
        assert alive() == before
        assert encoder.encode(TONE.tobytes()) == encoder.finish() == b"", "one that was on its way to a thread"
        encoder.close()
    finally:
        gc.enable()
