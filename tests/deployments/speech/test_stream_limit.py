"""The limit that is learned from the pace of streams."""

import math
from itertools import pairwise

import pytest

from deployments.speech.stream_limit import StreamLimit


def rounds(
    limit: StreamLimit, count: int, pace: float, in_use: int, *, making: int | None = None, full: bool = True
) -> None:
    """Let `making` of the streams in use (usually all) be made at this pace, for a number of rounds."""
    for _ in range(count):
        before = limit._round
        while limit._round is before:
            if full:
                limit.full()
            limit.observe(0.1, 0.1 / pace, in_use, in_use if making is None else making)


def learned(value: float) -> StreamLimit:
    limit = StreamLimit()
    rounds(limit, 1, 1.4, 4)
    assert not limit.growing_fast
    limit.limit = value
    return limit


def test_a_new_limit_doubles_while_the_pace_is_good() -> None:
    limit = StreamLimit()
    rounds(limit, 1, 10.0, 4)
    rounds(limit, 1, 2.1, 8)
    assert limit.limit == 16.0
    rounds(limit, 1, 1.75, 16)
    assert limit.limit == pytest.approx(28.0), "28 streams would be just in time if all share the machine"
    rounds(limit, 1, 1.4, 28)
    assert not limit.growing_fast
    assert limit.limit == pytest.approx(28.0)


def test_a_size_that_is_not_known_stays_unknown_while_the_limit_is_not_in_use() -> None:
    limit = StreamLimit()
    rounds(limit, 9, 5.0, 1, full=False)
    assert (limit.limit, limit.growing_fast) == (4.0, True)


def test_a_learned_limit_grows_by_a_tenth_at_most_to_what_is_certain() -> None:
    limit = learned(40.0)
    rounds(limit, 2, 3.0, 40)
    assert limit.limit == pytest.approx(48.4)
    rounds(limit, 1, 1.55, 48)
    assert limit.limit == pytest.approx(48 * 1.55 / 1.5, abs=0.1)


def test_one_stream_more_is_an_attempt_that_waits_longer_after_each_failure() -> None:
    """One stream has a pace of 2, and two have a pace of 1."""
    limit, attempts = learned(1.0), []
    for number in range(300):
        in_use = int(limit.limit)
        before = limit.limit
        rounds(limit, 1, 2.0 / in_use, in_use)
        if limit.limit > before:
            attempts.append(number)
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert pauses[:4] == [3, 5, 9, 17]
    assert max(pauses) == 65


def test_an_attempt_that_succeeds_is_repeated_at_once() -> None:
    """The streams share batches, so the pace hardly depends on their number."""
    limit = learned(1.0)
    rounds(limit, 1, 1.6, 1)
    assert limit.limit == 2.0
    rounds(limit, 5, 1.6, 2)
    assert limit.limit >= 2.0
    limit = learned(1.0)
    for _ in range(10):
        rounds(limit, 1, 1.6, int(limit.limit))
    assert limit.limit == 11.0


def test_streams_that_wait_at_a_replica_do_not_make_the_limit_grow() -> None:
    """Four streams are fast because four others have not begun."""
    limit = learned(8.0)
    rounds(limit, 60, 2.0, 8, making=4)
    assert limit.limit == 8.0


def test_a_limit_that_is_not_in_use_does_not_grow() -> None:
    limit = learned(4.0)
    rounds(limit, 5, 3.0, 2, full=False)
    assert limit.limit == 4.0


def test_a_bad_pace_shrinks_the_limit_to_what_would_be_in_time() -> None:
    limit = learned(12.0)
    rounds(limit, 1, 1.0, 12)
    assert limit.limit == pytest.approx(8.0, abs=0.1)
    rounds(limit, 1, 0.1, 12)
    assert limit.limit == pytest.approx(4.0, abs=0.1), "one round takes at most half"


def test_a_stall_of_all_streams_is_one_bad_round() -> None:
    limit = learned(80.0)
    for _ in range(80):
        limit.observe(0.16, 5.0, 80, 80)
    for _ in range(200):  # audio that was made meanwhile
        limit.observe(0.64, 0.001, 80, 80)
    assert limit.limit == pytest.approx(40.0)


@pytest.mark.parametrize(("late", "expected"), [(1, 16.0), (4, 16.0), (17, 14.4)])
def test_late_chunks_count_by_their_share(late: int, expected: float) -> None:
    limit = learned(16.0)
    for _ in range(late):  # of 160 chunks
        limit.late()
    rounds(limit, 1, 1.3, 16)
    assert limit.limit == pytest.approx(expected)


def test_one_late_chunk_of_few_does_not_count() -> None:
    limit = learned(1.0)
    limit.late()
    rounds(limit, 1, 1.6, 1)
    assert limit.limit == 2.0


def test_a_pace_between_good_and_bad_leaves_the_limit_for_many_rounds() -> None:
    limit = learned(6.0)
    rounds(limit, 14, 1.3, 6)
    assert limit.limit == 6.0


def test_a_machine_that_is_too_slow_for_one_stream_has_no_limit_until_it_keeps_up() -> None:
    limit = StreamLimit()
    rounds(limit, 9, 0.9, 1)
    assert math.isinf(limit.limit)
    rounds(limit, 1, 0.3, 9)
    limit.refused()
    assert math.isinf(limit.limit)
    rounds(limit, 5, 1.5, 6)
    assert limit.limit == 6.0
    rounds(limit, 20, 0.9, 1)
    assert limit.limit == 1.0, "a machine that kept up once is slow because it is loaded"


def test_only_streams_that_are_alone_show_a_machine_that_is_too_slow() -> None:
    """Two streams at 0.7 each; the second one ends before the round does."""
    limit = StreamLimit()
    for _ in range(20):
        for _ in range(9):
            limit.observe(0.1, 0.1 / 0.7, 2, 2)
        limit.observe(0.1, 0.1 / 0.7, 1, 1)
    assert limit.limit == 1.0


def test_a_pause_of_the_reader_does_not_make_a_slow_machine_fast() -> None:
    limit = StreamLimit()
    rounds(limit, 20, 0.4, 1)
    limit.observe(0.64, 5.0, 1, 1)
    for _ in range(2):
        limit.observe(0.64, 0.001, 1, 1)
    assert math.isinf(limit.limit)


def test_a_full_replica_lowers_the_limit_by_a_tenth_once_in_a_round() -> None:
    limit = learned(20.0)
    for _ in range(5):
        limit.refused()
    assert limit.limit == pytest.approx(18.0)
    rounds(limit, 1, 1.3, 18)
    limit.refused()
    assert limit.limit == pytest.approx(16.2)
