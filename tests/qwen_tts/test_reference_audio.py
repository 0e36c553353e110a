"""Recordings nobody should clone from, each with its reason, and what is just good enough."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen_tts.audio import Clip
from qwen_tts.errors import InvalidRequest
from qwen_tts.reference_audio import LONGEST_S, SHORTEST_S, check_reference
from tests.human_speech import readings
from tests.parity.reference_clips import CLIPS

RATE_HZ = 24000
HIGH = CLIPS["high"].samples()


def seconds(length_s: float) -> NDArray[np.float32]:
    """Speech-like sound of any length."""
    return np.resize(HIGH, round(length_s * RATE_HZ))


def noise(scale: float = 0.1) -> NDArray[np.float32]:
    return (scale * np.random.default_rng(0).standard_normal(3 * RATE_HZ)).astype(np.float32)


def tone(hz: float) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(3 * RATE_HZ) / RATE_HZ)).astype(np.float32)


def clicks() -> NDArray[np.float32]:
    samples = np.zeros(3 * RATE_HZ, np.float32)
    samples[::RATE_HZ] = 0.9
    return samples


def rumble() -> NDArray[np.float32]:
    """Loud and quiet in turn, but below any voice."""
    gate = np.arange(3 * RATE_HZ) % 8000 < 4000
    return (tone(30) * gate).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "code"),
    [
        (seconds(SHORTEST_S - 0.01), "audio_too_short"),
        (seconds(LONGEST_S + 0.1), "audio_too_long"),
        (np.zeros(3 * RATE_HZ, np.float32), "audio_silent"),
        (1e-3 * HIGH, "audio_silent"),
        (noise(), "audio_without_speech"),
        (tone(200), "audio_without_speech"),
        (np.full(3 * RATE_HZ, 0.5, np.float32), "audio_without_speech"),
        (clicks(), "audio_without_speech"),
        (rumble(), "audio_without_speech"),
        (np.concatenate([seconds(0.1), 0 * seconds(2.0)]), "audio_without_speech"),
        (np.concatenate([seconds(0.6), 0 * seconds(0.5)]), "audio_without_speech"),
        (np.clip(HIGH * 20, -1, 1), "audio_clipped"),
        (np.clip(HIGH * 20, -1, 1) * 0.5, "audio_clipped"),
    ],
    ids=[
        "short", "long", "silence", "very quiet", "noise", "tone", "constant", "clicks", "rumble", "a word in silence",
        "two syllables", "clipped", "clipped, then turned down",
    ],
)  # fmt: skip
def test_unfit(samples: NDArray[np.float32], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_reference(Clip(samples, RATE_HZ))
    assert (caught.value.param, caught.value.code) == ("ref_audio", code)
    assert caught.value.message.startswith("ref_audio ")


@pytest.mark.parametrize(
    "samples",
    [
        seconds(SHORTEST_S),
        seconds(LONGEST_S),
        0.1 * HIGH,
        HIGH + noise(0.005)[: len(HIGH)],
        HIGH / np.abs(HIGH).max(),
        np.clip(HIGH, -0.9 * np.abs(HIGH).max(), 0.9 * np.abs(HIGH).max()),
        np.concatenate([0 * seconds(1.0), seconds(1.0), 0 * seconds(1.0)]),
    ],
    ids=["short", "long", "quiet", "noisy", "full scale", "a few peaks cut", "pauses"],
)
def test_just_fit(samples: NDArray[np.float32]) -> None:
    check_reference(Clip(samples.astype(np.float32), RATE_HZ))


@pytest.mark.parametrize("name", CLIPS)
def test_made_up_voices_pass(name: str) -> None:
    check_reference(Clip(CLIPS[name].samples(), CLIPS[name].sample_rate_hz))


def test_a_person_passes_and_does_not_when_overdriven() -> None:
    for reading in readings():
        check_reference(Clip(reading.samples, reading.rate_hz))
        check_reference(Clip(0.05 * reading.samples, reading.rate_hz))
        with pytest.raises(InvalidRequest, match="clipped"):
            check_reference(Clip(np.clip(reading.samples * 10, -1, 1), reading.rate_hz))
