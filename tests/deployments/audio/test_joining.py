"""Silence at the ends of the pieces counts as part of the pause between them."""

import numpy as np
import pytest

from deployments.audio.joining import Joiner

RATE = 1000
ONSET = 20  # samples that stay before the first sound


def samples(*parts: tuple[int, int]) -> bytes:
    """Return PCM of all (level, count) parts in turn."""
    return b"".join(np.full(count, level, dtype="<i2").tobytes() for level, count in parts)


def gap(first: bytes, second: bytes, pause_ms: int, cut: int | None = None) -> tuple[int, int]:
    """Return the number of silent samples between two sounds, and of all samples."""
    joiner = Joiner(RATE)
    heard = b"".join(joiner.add(first))
    joiner.pause(pause_ms)
    for piece in (second[:cut], second[cut:]) if cut else (second,):
        heard += b"".join(joiner.add(piece))
    loud = np.flatnonzero(np.abs(np.frombuffer(heard, "<i2")) > 200)
    return int(np.diff(loud).max()) - 1, len(heard) // 2


@pytest.mark.parametrize("cut", [None, 2, 100, 200, 260])
def test_what_is_missing_is_put_in(cut: int | None) -> None:
    assert gap(samples((900, 50), (0, 40)), samples((0, 60), (900, 50)), 250, cut) == (250, 350)


@pytest.mark.parametrize("cut", [None, 2, 100, 200, 900])
def test_what_is_too_much_is_left_out(cut: int | None) -> None:
    assert gap(samples((900, 50), (3, 40)), samples((-3, 400), (900, 50)), 250, cut) == (250, 350)


def test_the_softest_beginning_is_kept() -> None:
    assert gap(samples((900, 50), (0, 400)), samples((0, 300), (900, 50)), 250) == (400 + ONSET, 500 + ONSET)


def test_the_first_piece_is_heard_as_it_is() -> None:
    joiner = Joiner(RATE)
    quiet = samples((0, 100))
    assert joiner.add(quiet) == (b"", quiet)


def test_silence_counts_over_chunks_and_a_silent_piece_is_left_out() -> None:
    joiner = Joiner(RATE)
    for chunk in (samples((900, 10)), samples((0, 30)), samples((0, 30))):
        joiner.add(chunk)
    joiner.pause(100)
    assert joiner.add(samples((0, 500))) == (b"", b"")
    joiner.pause(100)
    silence, sound = joiner.add(samples((900, 10)))
    assert (len(silence), len(sound)) == (2 * 40, 20)
