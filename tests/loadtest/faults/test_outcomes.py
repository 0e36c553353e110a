"""Samples are compared up to the tolerance, and a wrong length is a difference."""

import numpy as np
import pytest

from loadtest.faults.outcomes import compared

_SPOKEN = np.arange(-500, 500).astype("<i2")


def _changed(sample: int, steps: int) -> bytes:
    changed = _SPOKEN.copy()
    changed[sample] += steps
    return changed.tobytes()


@pytest.mark.parametrize(
    ("received", "found"),
    [
        (_SPOKEN.tobytes(), (0, None)),
        (_changed(700, 2), (2, None)),
        (_changed(700, -3), (3, 700)),
        (_SPOKEN[:900].tobytes(), (0, 900)),
        (_changed(3, 9)[:-200], (9, 3)),
        (_SPOKEN.tobytes() + b"\0\0", (0, 1000)),
        (b"", (0, 0)),
    ],
    ids=["the same", "within", "beyond", "shorter", "shorter, and different before", "longer", "nothing"],
)
def test_the_first_difference_of_a_whole_stream(received: bytes, found: tuple[int, int | None]) -> None:
    assert compared(_SPOKEN.tobytes(), received, 2, whole=True) == found


def test_a_stream_that_was_cut_is_compared_up_to_its_end() -> None:
    assert compared(_SPOKEN.tobytes(), _SPOKEN.tobytes()[:333], 2, whole=False) == (0, None)
    assert compared(_SPOKEN.tobytes(), _changed(100, 5)[:333], 2, whole=False) == (5, 100)


def test_the_largest_steps_do_not_overflow() -> None:
    low, high = np.array([-32768], "<i2").tobytes(), np.array([32767], "<i2").tobytes()
    assert compared(low, high, 2, whole=True) == (65535, 0)
