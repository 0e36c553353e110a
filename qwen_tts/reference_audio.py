"""Check whether a recording is fit for cloning. Each refusal gives the reason: a bad reference makes a bad voice."""

import numpy as np
from numpy.typing import NDArray

from qwen_tts.audio import Clip
from qwen_tts.errors import InvalidRequest

SHORTEST_S = 1.0
LONGEST_S = 60.0

_FRAME_S = 0.025  # the window in which levels are measured
_SILENT_DB = -50.0  # relative to full scale; speech recorded at a distance is above -40
# The level of speech moves by 10 dB and more within a second, that of noises, hums and tones by less than 2 dB.
_LEAST_MOVEMENT_DB = 4.0
_SPEECH_BAND_HZ = (80.0, 5000.0)
_LEAST_BAND_SHARE = 0.2  # share of the energy; speech has over 0.8, a rumble none
_ACTIVE_DB = 25.0  # below the loudest frame
_LEAST_ACTIVE_S = 0.4
_CLIPPED_SHARE = 0.01  # share of the samples at the peak; clean speech has less than a tenth of this


def check_reference(clip: Clip) -> None:
    """Raise InvalidRequest, with the reason, when no voice can be cloned from `clip`."""
    if clip.seconds < SHORTEST_S:
        raise _unfit(f"is {clip.seconds:.2f} s long; it must have at least {SHORTEST_S:g} s", "audio_too_short")
    if clip.seconds > LONGEST_S:
        raise _unfit(f"is {clip.seconds:.1f} s long; it must have at most {LONGEST_S:g} s", "audio_too_long")
    levels = _levels_db(clip)
    loudest = float(levels.max())
    if loudest < _SILENT_DB:
        raise _unfit(f"is silent: its highest level is {loudest:.0f} dB relative to full scale", "audio_silent")
    active_s = float((levels > loudest - _ACTIVE_DB).sum()) * _FRAME_S
    if active_s < _LEAST_ACTIVE_S or _movement_db(levels) < _LEAST_MOVEMENT_DB or _band_share(clip) < _LEAST_BAND_SHARE:
        raise _unfit("holds no speech", "audio_without_speech")
    magnitudes = np.abs(clip.samples)
    clipped = float((magnitudes >= 0.999 * magnitudes.max()).mean())
    if clipped > _CLIPPED_SHARE:
        raise _unfit(f"is clipped: {clipped:.0%} of its samples are cut off at its peak", "audio_clipped")


def _levels_db(clip: Clip) -> NDArray[np.float64]:
    """Return the power of successive frames in dB relative to full scale."""
    size = round(_FRAME_S * clip.sample_rate_hz)
    frames = clip.samples[: len(clip.samples) // size * size].reshape(-1, size).astype(np.float64)
    levels: NDArray[np.float64] = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-12)
    return levels


def _movement_db(levels: NDArray[np.float64]) -> float:
    """Return the span of the level within a second in dB: 10th to 90th percentile, median over the seconds."""
    second = round(1 / _FRAME_S)
    windows = np.lib.stride_tricks.sliding_window_view(levels, min(second, len(levels)))[:: second // 4]
    low, high = np.percentile(windows, (10, 90), axis=1)
    return float(np.median(high - low))


def _band_share(clip: Clip) -> float:
    """Return the share of the energy (without the constant part) in the frequency band of speech."""
    energy = np.square(np.abs(np.fft.rfft(clip.samples - clip.samples.mean())))
    hz = np.fft.rfftfreq(len(clip.samples), 1 / clip.sample_rate_hz)
    low, high = _SPEECH_BAND_HZ
    return float(energy[(hz >= low) & (hz <= high)].sum() / energy.sum())


def _unfit(reason: str, code: str) -> InvalidRequest:
    return InvalidRequest(f"ref_audio {reason}", "ref_audio", code)
