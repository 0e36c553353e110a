"""The file that receives the output of a process and of its children."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.commands.service_log import ServiceLog
from deployments.commands.start_checks import StartFailed

FILE = "logs/serve.log"


@pytest.fixture(autouse=True)
def no_capture(capfd: pytest.CaptureFixture[str]) -> None:
    """Redirect within one test only: the tests redirect descriptors that pytest redirects too."""


def test_all_output_lands_in_the_file_and_the_terminal_stays_clean(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ServiceLog(tmp_path / FILE) as log:
        os.write(1, b"native out\n")
        os.write(2, b"native error\n")
        subprocess.run([sys.executable, "-c", "print('a child')"], check=True)
        print("on the terminal", file=log.terminal)
        assert log.new_lines() == ["native out", "native error", "a child"]
    os.write(1, b"afterwards\n")
    assert capfd.readouterr().out == "on the terminal\nafterwards\n"
    assert (tmp_path / FILE).read_text() == "native out\nnative error\na child\n"


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    with ServiceLog(tmp_path / FILE) as log:
        os.write(1, b"one\ntw")
        assert log.new_lines() == ["one"]
        os.write(1, "o €\r\n".encode())
        assert log.new_lines() == ["two €"]
        assert log.new_lines() == []


def test_the_file_before_is_kept(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n", b"third\n"):
        with ServiceLog(tmp_path / FILE):
            os.write(1, text)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["serve.log", "serve.log.1"]
    assert (tmp_path / FILE).read_text() == "third\n"
    assert (tmp_path / f"{FILE}.1").read_text() == "second\n"


def test_a_large_file_is_replaced(tmp_path: Path) -> None:
    with ServiceLog(tmp_path / FILE, max_bytes=10) as log:
        os.write(1, b"0123456789\n")
        assert log.new_lines() == ["0123456789"]
        os.write(2, b"next\n")
        assert log.new_lines() == ["next"]
    assert (tmp_path / FILE).read_text() == "next\n"
    assert (tmp_path / f"{FILE}.1").read_text() == "0123456789\n"


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StartFailed, match=r"cannot write the log .*; choose another file with --log-file"):
        ServiceLog(tmp_path / FILE).__enter__()
