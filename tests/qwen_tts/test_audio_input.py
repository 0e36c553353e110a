"""Reference audio in every form a caller may send, and what is no audio at all."""

import base64
import io
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from qwen_tts import audio
from qwen_tts.audio import AudioSource, Clip, audio_type, decode_audio, decode_base64, load_audio
from qwen_tts.errors import InvalidRequest
from tests.recordings import FILES, encode, recording

RATE_HZ = 24000
SAMPLES = recording("high")[0]
WAV = encode(SAMPLES, RATE_HZ)
STEP = 1 / 32768


def tone(hz: float, rate_hz: int, seconds: float = 1.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def refused(source: Any, code: str = "invalid_audio", max_s: float = math.inf) -> str:
    with pytest.raises(InvalidRequest) as caught:
        load_audio(source, max_s)
    assert (caught.value.param, caught.value.code) == ("ref_audio", code), caught.value.message
    return caught.value.message


def test_every_way_to_name_a_file_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)
    text = base64.b64encode(WAV).decode()
    wrapped = base64.encodebytes(WAV).decode()
    sources: list[AudioSource] = [
        path,
        str(path),
        wrapped,
        text,
        f"data:audio/wav;base64,{text}",
        f"data:;base64,{text}",
    ]
    for source in sources:
        clip = load_audio(source)
        assert clip.sample_rate_hz == RATE_HZ
        np.testing.assert_allclose(clip.samples, SAMPLES, atol=STEP, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "full_scale", "step"),
    [("f4", 1, 0), ("f8", 1, 0), ("f2", 1, 1e-3), ("i2", 2**15, STEP), ("i4", 2**31, 1e-7), ("u1", None, 2 / 128)],
)
def test_arrays_of_any_kind_of_sample(dtype: str, full_scale: int | None, step: float) -> None:
    stored = SAMPLES * 127 + 128 if full_scale is None else SAMPLES.astype(np.float64) * full_scale
    clip = load_audio((stored.astype(dtype), 16000))
    assert clip.sample_rate_hz == 16000
    assert clip.samples.dtype == np.dtype(np.float32)
    np.testing.assert_allclose(clip.samples, SAMPLES, atol=step, rtol=0)


def test_channels_are_averaged_whichever_way_they_lie() -> None:
    left, right = SAMPLES, 0.5 * SAMPLES[::-1]
    for stereo in (np.stack([left, right]), np.stack([left, right], axis=1)):
        np.testing.assert_allclose(load_audio((stereo, RATE_HZ)).samples, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ((np.zeros((2, 2, 2), np.float32), RATE_HZ), "invalid_audio"),
        ((np.zeros(0, np.float32), RATE_HZ), "invalid_audio"),
        ((np.array([0.1, np.nan], np.float32), RATE_HZ), "invalid_audio"),
        ((np.array([0.1, np.inf], np.float32), RATE_HZ), "invalid_audio"),
        ((np.array(["a"]), RATE_HZ), "invalid_audio"),
        ((np.array([1 + 2j]), RATE_HZ), "invalid_audio"),
        ((SAMPLES, 0), "invalid_audio"),
        ((SAMPLES, -24000), "invalid_audio"),
        ((SAMPLES, 22050.5), "invalid_audio"),
        ((SAMPLES, None), "invalid_audio"),
        ((SAMPLES, "24 kHz"), "invalid_audio"),
        ((SAMPLES, math.nan), "invalid_audio"),
        ((SAMPLES, math.inf), "invalid_audio"),
        ((SAMPLES, 10**7), "invalid_audio"),
        ((SAMPLES.tolist(), RATE_HZ), "invalid_audio"),
        (SAMPLES, "invalid_value"),
        (None, "invalid_value"),
        (b"RIFF", "invalid_value"),
        ("", "invalid_audio"),
        ("no such file.wav", "invalid_audio"),
        ("nul\0byte.wav", "invalid_audio"),
        ("data:audio/wav,abc", "invalid_audio"),
        ("data:audio/wav;base64,***", "invalid_audio"),
        ("*" * 300, "invalid_audio"),
        ("A" * 400, "invalid_audio"),
        ("ftp://example.com/clip.wav", "invalid_audio"),
    ],
)
def test_what_is_no_audio(source: Any, code: str) -> None:
    refused(source, code)


@pytest.mark.parametrize("case", FILES)
def test_containers(case: str) -> None:
    """The tone comes out at its pitch and level, and about as long as it went in (codecs pad)."""
    container, codec, rate_hz, channels = FILES[case]
    clip = decode_audio(encode(tone(440, rate_hz, 2.0), rate_hz, container, codec, channels))
    assert clip.sample_rate_hz == rate_hz
    assert 1.99 < clip.seconds < 2.1
    middle = clip.samples[rate_hz // 2 : rate_hz // 2 + rate_hz]
    spectrum = np.abs(np.fft.rfft(middle))
    assert int(spectrum.argmax()) == 440, "Hz, as the middle is one second"
    assert np.square(middle).mean() == pytest.approx(0.125, rel=0.15)


@pytest.mark.parametrize(
    ("case", "mime_type"),
    [
        ("wav 8 kHz", "audio/wav"), ("mp3", "audio/mpeg"), ("flac", "audio/flac"), ("ogg opus", "audio/ogg"),
        ("m4a", "audio/mp4"), ("aiff", "application/octet-stream"),
    ],
)  # fmt: skip
def test_mime_types_are_those_of_the_content(case: str, mime_type: str) -> None:
    container, codec, rate_hz, channels = FILES[case]
    assert audio_type(encode(tone(440, rate_hz), rate_hz, container, codec, channels)) == mime_type


def test_mime_type_of_nonsense() -> None:
    assert audio_type(b"") == audio_type(b"<html><script>") == "application/octet-stream"


def video_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def header_of(rate_hz: int) -> bytes:
    return WAV[:24] + rate_hz.to_bytes(4, "little") + WAV[28:]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        WAV[:44],
        b"these are words, not sound " * 99,
        np.random.default_rng(0).bytes(20000),
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        video_only(),
        header_of(0),
        header_of(2**31),
    ],
    ids=[
        "empty", "half a header", "no samples", "text", "noise", "hls", "concat", "sdp", "dash", "video", "0 Hz",
        "2 GHz",
    ],
)  # fmt: skip
def test_files_that_are_no_audio(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_audio(data)
    assert (caught.value.param, caught.value.code) == ("ref_audio", "invalid_audio")


def test_an_upload_opens_no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes a relative name in a playlist for safe: it would read the clip, were playlists read at all."""
    (tmp_path / "clip.wav").write_bytes(WAV)
    monkeypatch.chdir(tmp_path)
    playlist = b"ffconcat version 1.0\nfile clip.wav\n"
    with av.open(io.BytesIO(playlist), mode="r") as file:
        assert file.format.name == "concat"
        assert next(file.decode(audio=0)).samples, "FFmpeg itself does"
    with pytest.raises(InvalidRequest, match="is not a readable audio file"):
        decode_audio(playlist)


def test_a_truncated_file_gives_what_it_holds() -> None:
    clip = decode_audio(WAV[: len(WAV) // 2])
    np.testing.assert_allclose(clip.samples, SAMPLES[: len(clip.samples)], atol=STEP, rtol=0)
    assert clip.seconds == pytest.approx(len(SAMPLES) / RATE_HZ / 2, abs=0.05)


def test_decoding_stops_when_it_has_run_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of silence is a small file; of it, little more than the allowed second is ever unpacked."""
    bomb = encode(np.zeros(3600 * RATE_HZ, np.float32), RATE_HZ, "flac", "flac")
    assert len(bomb) < 600_000
    frames = counted(monkeypatch)
    with pytest.raises(InvalidRequest, match="longer than 1 s"):
        decode_audio(bomb, max_s=1.0)
    assert RATE_HZ < sum(frames) < 2 * RATE_HZ
    refused(base64.b64encode(bomb).decode(), "audio_too_long", max_s=1.0)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples of every frame that is unpacked from here on."""
    frames: list[int] = []
    mono = audio._mono

    def count(frame: av.AudioFrame) -> NDArray[np.float32]:
        frames.append(frame.samples)
        return mono(frame)

    monkeypatch.setattr(audio, "_mono", count)
    return frames


def test_a_rate_that_no_recorder_has_is_refused_before_anything_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A length limit in seconds is none for a file that may choose how many samples a second has."""
    bomb = encode(np.zeros(10**6, np.float32), 655_350, "flac", "flac")
    frames = counted(monkeypatch)
    with pytest.raises(InvalidRequest, match="655350 Hz"):
        decode_audio(bomb, max_s=60.0)
    assert frames == []


def test_a_file_in_tiny_pieces_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        for position in range(5000):
            packet = av.Packet(b"\0\0")
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, position, position, Fraction(1, 8000)
            file.mux(packet)
    frames = counted(monkeypatch)
    with pytest.raises(InvalidRequest, match="too many packets"):
        decode_audio(buffer.getvalue(), max_s=1.0)
    assert len(frames) <= 1001


@pytest.mark.parametrize("text", ["A", "A===", "AA AA", "ÄÄÄÄ", "data:audio/wav;base64,A"])
def test_base64_that_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="base64"):
        decode_base64(text)


@pytest.mark.parametrize(("old_hz", "new_hz"), [(16000, 24000), (44100, 24000), (48000, 24000), (8000, 24000)])
@pytest.mark.parametrize("samples", [24000, 24001, 31337])
def test_resampling(old_hz: int, new_hz: int, samples: int) -> None:
    clip = Clip(tone(440, old_hz, samples / old_hz), old_hz).resampled(new_hz)
    assert len(clip.samples) == math.ceil(samples * (new_hz / old_hz))
    inner = slice(new_hz // 10, len(clip.samples) - new_hz // 10)
    np.testing.assert_allclose(clip.samples[inner], tone(440, new_hz, len(clip.samples) / new_hz)[inner], atol=1e-3)


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    clip = Clip(SAMPLES, RATE_HZ)
    assert clip.resampled(RATE_HZ) is clip
