"""The times that refused requests are told, on a clock that the test sets."""

import pytest

from deployments.speech import promises as promises_module
from deployments.speech.promises import LONGEST_S, Promises


def told(promises: Promises, *keys: bytes, now: float = 0.0, wait_s: float = 5.0, each_s: float = 2.0) -> list[float]:
    return [promises.promise(key, None, now, wait_s, each_s) for key in keys]


def test_promises_are_apart_by_the_time_of_a_place() -> None:
    promises = Promises()
    assert told(promises, b"a", b"b", b"c") == [5.0, 7.0, 9.0]
    assert told(promises, b"d", now=100.0) == [5.0]


@pytest.mark.parametrize(("now", "kept"), [(4.4, False), (4.6, True), (5.0, True), (19.0, True), (21.0, False)])
def test_a_promise_holds_around_its_time(now: float, kept: bool) -> None:
    promises = Promises()
    told(promises, b"a")
    assert promises.returns(b"a", now) == kept


def test_a_promise_holds_once_and_for_its_own_request() -> None:
    promises = Promises()
    told(promises, b"a")
    assert not promises.returns(b"b", 5.0)
    assert promises.returns(b"a", 5.0)
    assert not promises.returns(b"a", 5.0)


def test_promises_are_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    promises = Promises()
    assert told(promises, b"far", wait_s=LONGEST_S + 1) == [LONGEST_S]
    monkeypatch.setattr(promises_module, "_MOST", 3)
    assert told(promises, b"a", b"b", b"c", each_s=1.0)[-1] == 7.0
    assert told(promises, b"d", b"e", each_s=1.0) == [8.0, 8.0], "the time without a promise is that of the line"
    assert len(promises) == 3
    assert told(promises, b"e", now=100.0) == [5.0]
    assert len(promises) == 1, "promises that are over were kept"


def test_requests_that_never_come_back_make_times_shorter() -> None:
    promises = Promises()
    for number in range(500):
        told(promises, str(number).encode(), now=30.0 * number)
    one, other = told(promises, b"a", b"b", now=30.0 * 600)
    assert other - one == pytest.approx(0.2, abs=0.1)


def test_those_who_come_back_soon_are_expected() -> None:
    promises = Promises()
    told(promises, b"a", b"b", b"c")
    assert promises.expected(0.0, 8.0) == 2.0
    promises.returns(b"a", 5.0)
    assert promises.expected(5.0, 8.0) == pytest.approx(1.0)
    assert promises.expected(8.0, 8.5) == 0.0, "b is late, and may not come at all"


def test_a_caller_with_a_name_has_a_bounded_number_of_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises_module, "_MOST_OF_CALLER", 2)
    promises = Promises()
    times = [promises.promise(str(number).encode(), "one", 0.0, 5.0, 2.0) for number in range(50)]
    assert times[:4] == [5.0, 7.0, 9.0, 9.0]
    assert len(promises) == 2
    assert promises.promise(b"other", "other", 0.0, 5.0, 2.0) == 9.0
    assert promises.returns(b"0", 5.0)
    assert promises.promise(b"next", "one", 5.0, 5.0, 2.0) > 0
    assert len(promises) == 3


def test_the_same_request_may_be_promised_several_times() -> None:
    promises = Promises()
    assert told(promises, b"a", b"a", b"a") == [5.0, 7.0, 9.0]
    assert [promises.returns(b"a", now) for now in (5.0, 5.0, 7.0, 9.0, 9.0)] == [True, False, True, True, False]
    assert len(promises) == 0
