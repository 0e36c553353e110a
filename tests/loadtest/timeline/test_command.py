"""The command, against a server on a real socket."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadtest.__main__ import main
from loadtest.record import Refusal
from loadtest.timeline.result import TimelineResult
from tests.loadtest.fake_server import FakeServer
from tests.loadtest.test_generate import in_a_thread
from tests.loadtest.timeline.made_up import status


def _called(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, ["timeline", "--url", url, *map(str, words)])


def test_phases_are_sent_and_the_service_is_watched(tmp_path: Path) -> None:
    async def rule(number: int, _: Mapping[str, object]) -> Refusal | None:
        return {
            2: Refusal(status=503, code="model_starting", retry_after_s=5.0),
            3: Refusal(status=429, code="rate_limit_exceeded", retry_after_s=1.0),
        }.get(number)

    told = status(streams=1, talkers={"RUNNING": 1})
    with in_a_thread(FakeServer(refuses=rule, status=told)) as server:
        phases = ["--phase", "20:0.5", "--phase", "0:0.3", "--phase", "20:0.4"]
        done = _called(server.url, *phases, "--out", tmp_path, "--api-key", "secret")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "timeline.json").read_text()
    assert "secret" not in text
    result = TimelineResult.model_validate_json(text)
    assert result.everything.tries == result.conditions.requests == len(server.bodies) > 4
    assert len({str(body["input"]) for body in server.bodies}) == len(server.bodies)
    assert (result.everything.refused, result.everything.not_ready) == (1, {"model_starting": 1})
    assert result.everything.admitted == result.everything.tries - 2
    assert result.phases[1].counts.tries == 0
    assert result.samples, "the last phase is watched to its end"
    assert result.samples[0].state is not None
    page = (tmp_path / "timeline.md").read_text(encoding="utf-8")
    assert "| not ready (503) |" in page
    assert "| not ready (503) |" in done.output
    assert "## Running replicas" in page
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_a_server_without_status_is_measured_too(tmp_path: Path) -> None:
    with in_a_thread(FakeServer()) as server:
        done = _called(server.url, "--phase", "20:0.3", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "timeline.md").read_text(encoding="utf-8")
    assert "has no GET /status of this project's service" in page
    assert "## Running replicas" not in page


@pytest.mark.parametrize(
    ("phase", "message"), [("0:5", "every --phase is a pause"), ("0.0001:1", "no request arrives")]
)
def test_a_load_without_requests_is_refused(phase: str, message: str) -> None:
    done = _called("http://nowhere", "--phase", phase)
    assert done.exit_code == 1
    assert message in done.output
