"""Lines of a replica's log that report the progress of its start."""

import pytest

from deployments.wire import start_states
from deployments.wire.start_states import StartState, find_start_state, report_start

PREFIX = (
    "(ServeReplica:qwen-tts:talker-demo-base pid=12899) INFO 2026-12-01 02:26:55,433 qwen-tts_talker-demo-base qz8g"
)


def test_a_state_is_found() -> None:
    expected = StartState("talker-demo-base", "loading the weights")
    assert find_start_state(f"{PREFIX} -- loading the weights\n") == expected


@pytest.mark.parametrize(
    "line",
    [
        f"{PREFIX} f8716217-a917 -- CALL describe OK 8.6ms",
        "(ServeController pid=12693) INFO 2026-12-01 02:26:21,545 controller 12693 -- loading the weights",
        "loading the weights",
        "",
    ],
    ids=["another line of a replica", "another process", "no prefix", "empty"],
)
def test_other_lines_report_nothing(line: str) -> None:
    assert find_start_state(line) is None


def test_a_reported_state_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(start_states.log, "info", messages.append)
    report_start("warming up")
    (message,) = messages
    assert find_start_state(f"{PREFIX} -- {message}") == StartState("talker-demo-base", "warming up")


def test_a_state_that_would_not_be_recognised_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="would not be recognised"):
        report_start("nearly there")
