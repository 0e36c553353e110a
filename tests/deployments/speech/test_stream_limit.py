"""The limit that is learned from the pace of streams."""

import math

import pytest

from deployments.speech.stream_limit import StreamLimit


def rounds(limit: StreamLimit, count: int, pace: float, in_use: int, *, full: bool = True) -> None:
    """Let `in_use` streams be made at this pace, for a number of rounds."""
    now = 0.0
    limit._round.began_s = 0.0
    for _ in range(count):
        before = limit._round
        while limit._round is before:
            if full:
                limit.full()
            now += 0.1 / pace
            for _ in range(in_use):
                if limit._round is before:
                    limit.observe(0.1, 0.1 / pace, in_use, now)


def learned(value: float) -> StreamLimit:
    limit = StreamLimit(0.0)
    rounds(limit, 1, 1.5, 4)
    assert not limit.growing_fast
    limit.limit = value
    return limit


def test_a_new_limit_grows_by_half_while_the_pace_allows_it() -> None:
    limit = StreamLimit(0.0)
    rounds(limit, 1, 10.0, 4)
    rounds(limit, 1, 5.0, 6)
    assert limit.limit == 9.0
    rounds(limit, 1, 1.75, 9)
    assert not limit.growing_fast
    assert limit.limit == pytest.approx(10.0, abs=0.6), "9 streams at 1.75 are 10.5 at 1.5"


def test_a_learned_limit_grows_by_one_if_one_stream_more_leaves_a_good_pace() -> None:
    limit = learned(4.0)
    rounds(limit, 3, 2.5, 4)  # all audio would be enough for 6.7 streams
    assert limit.limit == 6.0
    rounds(limit, 3, 1.6, 6)
    assert limit.limit == 6.0


def test_streams_that_wait_at_a_replica_do_not_make_the_limit_grow() -> None:
    """Four streams are fast because four others have not begun."""
    limit = learned(8.0)
    now = limit._round.began_s
    for _ in range(400):
        limit.full()
        now += 0.05
        for _ in range(4):
            limit.observe(0.1, 0.05, 8, now)
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


def test_a_strained_round_shrinks_a_little_and_never_below_one() -> None:
    limit = learned(2.0)
    for _ in range(40):
        limit.strain()
        rounds(limit, 1, 1.5, 2)
    assert limit.limit == 1.0


def test_a_pace_between_good_and_bad_leaves_the_limit() -> None:
    limit = learned(6.0)
    rounds(limit, 10, 1.3, 6)
    assert limit.limit == 6.0


def test_a_machine_that_never_kept_up_has_no_limit_until_it_keeps_up() -> None:
    limit = StreamLimit(0.0)
    rounds(limit, 1, 0.9, 1)
    assert math.isinf(limit.limit)
    rounds(limit, 1, 0.3, 9)
    assert math.isinf(limit.limit)
    rounds(limit, 1, 1.5, 6)
    assert limit.limit == 6.0
    rounds(limit, 9, 0.9, 1)
    assert limit.limit == 1.0, "a machine that kept up once is slow because it is loaded"


def test_a_refusal_of_a_replica_bounds_the_limit() -> None:
    limit = StreamLimit(0.0)
    limit.refused(3, 0.0)
    assert (limit.limit, limit.growing_fast) == (2.0, False)
    limit.refused(1, 0.0)
    assert limit.limit == 1.0
