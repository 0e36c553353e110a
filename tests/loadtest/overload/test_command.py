"""The command, against a server on a real socket."""

from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner, Result

from loadtest.__main__ import main
from loadtest.overload.result import OverloadResult
from loadtest.record import Refusal
from tests.loadtest.fake_server import FakeServer
from tests.loadtest.test_generate import in_a_thread

_PLAIN_BEFORE = 10


def _called(url: str, *words: object) -> Result:
    plain = ["--rate", 60, "--for", 0.25, "--recovery-after", 0.05, "--language", "english"]
    return CliRunner().invoke(main, ["overload", "--url", url, *map(str, [*plain, *words])])


def test_a_run_reports_first_and_second_tries(tmp_path: Path) -> None:
    seen = set[str]()

    async def rule(number: int, body: Mapping[str, object]) -> Refusal | None:
        """Refuse every request once."""
        text = str(body["input"])
        if number < _PLAIN_BEFORE or text in seen:
            return None
        seen.add(text)
        return Refusal(status=429, code="rate_limit_exceeded", retry_after_s=0.0)

    with in_a_thread(FakeServer(refuses=rule)) as server:
        done = _called(server.url, "--out", tmp_path, "--api-key", "secret")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "overload.json").read_text()
    assert "secret" not in text
    result = OverloadResult.model_validate_json(text)
    assert (result.first.tries, result.first.refused, result.conditions.rate) == (15, 15, 60)
    assert result.second_during.admitted + result.second_after.admitted == 15
    overload = server.bodies[_PLAIN_BEFORE:-5]
    assert len(overload) == 30
    assert all(overload.count(body) == 2 for body in overload), "the second try has the body of the first"
    page = (tmp_path / "overload.md").read_text()
    assert "All 15 refusals were 429 with Retry-After. 15 of 15 second tries were admitted." in page
    assert "| tries | 15 |" in page
    assert "| tries | 15 |" in done.output
    assert "## Resident memory of the service" in page
    assert "(overload.png)" in page
    assert (tmp_path / "overload.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_in_which_nothing_was_refused_is_none(tmp_path: Path) -> None:
    with in_a_thread(FakeServer()) as server:
        done = _called(server.url, "--out", tmp_path)
    assert done.exit_code == 1
    assert "the server refused nothing, so this was no overload; give a higher --rate" in done.output
    assert (tmp_path / "overload.json").exists()
