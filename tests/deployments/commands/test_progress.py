"""Lines that show the progress of the start."""

import io
import re

from deployments.commands.progress import Progress

NAMES = {"talker-a": "a", "codec-decoder": "codec decoder"}


def test_states_are_lines_of_their_own_where_there_is_no_terminal() -> None:
    screen = io.StringIO()
    progress = Progress(screen, NAMES, in_place=False)
    progress.show("codec-decoder", "loading")
    progress.show("talker-a", "loading")
    progress.show("talker-a", "loading")  # a second replica
    progress.ready("talker-a")
    lines = screen.getvalue().splitlines()
    assert lines[:2] == ["  codec decoder  loading", "  a              loading"]
    assert [re.sub(r"\d+", "N", line) for line in lines[2:]] == ["  a              ready after N s"]


def test_lines_are_rewritten_on_a_terminal() -> None:
    screen = io.StringIO()
    progress = Progress(screen, NAMES, in_place=True)
    progress.show("talker-a", "loading")
    first, second = screen.getvalue().split("\x1b[2F\x1b[J")
    assert first.splitlines() == ["  a              starting a process", "  codec decoder  starting a process"]
    assert second.splitlines() == ["  a              loading", "  codec decoder  starting a process"]


def test_a_deployment_that_is_ready_stays_so() -> None:
    screen = io.StringIO()
    progress = Progress(screen, NAMES, in_place=False)
    progress.ready("talker-a")
    before = screen.getvalue()
    progress.show("talker-a", "loading")  # a late line of the log
    progress.ready("talker-a")
    assert screen.getvalue() == before


def test_other_deployments_have_no_line() -> None:
    screen = io.StringIO()
    progress = Progress(screen, NAMES, in_place=False)
    progress.show("ingress", "loading")
    progress.ready("ingress")
    assert screen.getvalue() == ""
