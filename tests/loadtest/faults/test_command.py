"""The command, against a server on a real socket, with commands as its hand."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadtest.__main__ import main
from loadtest.faults.result import FaultResult
from tests.loadtest.fake_server import FakeServer, Step, tone
from tests.loadtest.test_generate import in_a_thread

_NOWHERE = "http://127.0.0.1:9"


def _called(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, ["faults", "--url", url, *map(str, words)])


def _server() -> FakeServer:
    """Every fifth stream is cut, after the undisturbed ones."""
    return FakeServer(lambda _: [Step(0.02, tone(0.1))], faults=dict.fromkeys(range(9, 10000, 5), "short"))


def test_a_run_strikes_by_the_command_and_reports(tmp_path: Path) -> None:
    hand = f"echo '{{action}} {{kind}}' >> {tmp_path / 'struck'}"
    kinds = ["--kind", "talker", "--kind", "ingress", "--action", "drain"]
    when = ["--every", 0.4, "--lasts", 0.1, "--for", 0.8]
    with in_a_thread(_server()) as server:
        words = [*kinds, *when, "--hand", hand, "--leavers", 3, "--streams", 2, "--requests", 2, "--out", tmp_path]
        done = _called(server.url, *words, "--api-key", "secret")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "struck").read_text() == "drain talker\ndrain ingress\n"
    text = (tmp_path / "faults.json").read_text()
    result = FaultResult.model_validate_json(text)
    assert "secret" not in text
    assert result.disturbed.cut > 0
    assert result.disturbed.cut + result.disturbed.equal == result.disturbed.streams == len(result.streams)
    assert sum(result.leavers.values()) == 3
    seeds = {(body["seed"], body["input"]) for body in server.bodies}
    assert len(seeds) == 2, "a request has the same seed whenever it is sent"
    page = (tmp_path / "faults.md").read_text()
    assert f"| under faults | {result.disturbed.streams} | {result.disturbed.equal} |" in page
    assert page.count("| drain |") == 2
    assert "cut (truncated)" in page
    assert "![Each stream over time, with the faults as vertical lines](faults.png)" in page
    assert (tmp_path / "faults.png").read_bytes().startswith(b"\x89PNG")
    assert "| under faults |" in done.output


def test_a_run_whose_faults_all_failed_is_none(tmp_path: Path) -> None:
    words = ["--kind", "talker", "--every", 0.2, "--lasts", 0.1, "--for", 0.4, "--requests", 1, "--out", tmp_path]
    with in_a_thread(FakeServer(lambda _: [Step(0.02, tone(0.1))])) as server:
        done = _called(server.url, *words, "--hand", "echo no pod; false")
    assert done.exit_code == 1
    assert "no fault happened: `echo no pod; false` ended with 1: no pod" in done.output
    assert "did NOT happen" in (tmp_path / "faults.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing disturbs the streams: give --kind, --leavers or --slow-readers"),
        (["--kind", "talker", "--every", "4"], "--lasts may be at most half of --every"),
        (["--kind", "talker", "--action", "drain"], "a replica cannot be drained by a signal"),
        (["--kind", "talker", "--raylet", str(os.getpid())], "no replica of the kind talker runs on this machine"),
        (["--kind", "talker", "--hand", "true"], f"{_NOWHERE}: Cannot connect"),
    ],
)
def test_mistakes_are_explained(words: list[str], said: str) -> None:
    done = _called(_NOWHERE, *words)
    assert done.exit_code != 0
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_scenario_whose_samples_differ_each_time_is_refused() -> None:
    with in_a_thread(FakeServer()) as server:
        done = _called(server.url, "--leavers", 1, "--scenario", "live_text")
    assert done.exit_code == 1
    assert "--scenario live_text does not send the same bytes twice" in done.output
