"""The moments of the faults: repeatable, one in each interval, every action on every kind in turn."""

from collections import Counter

from loadtest.faults.schedule import schedule


def test_a_seed_gives_one_schedule_and_another_seed_another() -> None:
    planned = [schedule(["talker"], ["kill"], 10, 180, seed) for seed in (1, 1, 2)]
    assert planned[0] == planned[1]
    assert planned[0] != planned[2]


def test_there_is_a_fault_in_the_middle_half_of_every_interval() -> None:
    faults = schedule(["talker"], ["kill"], 10, 180, seed=3)
    assert len(faults) == 18
    for number, fault in enumerate(faults):
        assert 10 * number + 2.5 <= fault.at_s <= 10 * number + 7.5
        assert 0 <= fault.share < 1


def test_every_action_strikes_every_kind_in_turn() -> None:
    faults = schedule(["talker", "ingress"], ["kill", "stop"], 1, 8, seed=3)
    turns = [(fault.kind, fault.action) for fault in faults]
    assert turns[:4] == turns[4:]
    assert set(Counter(turns).values()) == {2}
    assert len(set(turns)) == 4


def test_without_a_kind_there_is_no_fault() -> None:
    assert schedule([], ["kill"], 1, 8, seed=3) == []
