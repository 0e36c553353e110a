"""A listener's buffer on a scripted clock."""

import pytest

from qwen_tts.engine.playback import Playback


def test_chunks_in_time_leave_audio_in_hand() -> None:
    playback = Playback(requested=10.0)
    assert playback.send(0.08, 10.5) is None
    assert playback.send(0.16, 10.55) == pytest.approx(0.05)
    assert playback.headroom(10.6) == pytest.approx(0.14)
    assert (playback.underruns, playback.silence) == (0, 0.0)


def test_other_audio_is_heard_first() -> None:
    playback = Playback(requested=5.0, ahead=2.0)
    assert playback.ends == pytest.approx(7.16), "when the first of it is wanted at the latest"
    playback.send(0.5, 6.0)
    assert playback.headroom(6.0) == pytest.approx(1.5), "a second of the other audio has been played meanwhile"
    playback.send(0.5, 7.4)
    assert playback.underruns == 0
    playback.send(0.5, 8.1)
    assert playback.silence == pytest.approx(0.1)


def test_audio_that_comes_after_the_other_audio_is_heard_when_it_comes() -> None:
    playback = Playback(requested=5.0, ahead=2.0)
    playback.send(0.5, 9.0)
    assert playback.ends == pytest.approx(9.5)


def test_a_late_chunk_is_heard_as_silence_once() -> None:
    playback = Playback(requested=0.0)
    playback.send(0.08, 1.0)
    assert playback.headroom(1.2) == pytest.approx(-0.12)
    playback.send(0.08, 1.2)
    assert playback.underruns == 1
    assert playback.silence == pytest.approx(0.12)
    assert playback.headroom(1.2) == pytest.approx(0.08), "playing goes on with what has come"
    playback.send(0.08, 1.25)
    assert playback.underruns == 1
    playback.send(0.08, 1.4)
    assert playback.underruns == 2
    assert playback.silence == pytest.approx(0.16)


@pytest.mark.parametrize(("audio", "now"), [(-0.08, 1.1), (0.08, 0.9)], ids=["negative audio", "time runs backwards"])
def test_a_ledger_that_would_be_wrong_is_noticed(audio: float, now: float) -> None:
    playback = Playback(requested=0.0)
    playback.send(0.08, 1.0)
    with pytest.raises(AssertionError):
        playback.send(audio, now)
