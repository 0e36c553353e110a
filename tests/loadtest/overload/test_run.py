"""Refused requests come back exactly when they were told to, and each try is counted under what happened to it."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest

from loadtest import client, generate
from loadtest.arrivals import offsets_s
from loadtest.bench import Bench
from loadtest.client import Target
from loadtest.generate import Planned
from loadtest.overload import run as overload_run
from loadtest.overload.report import write_report
from loadtest.overload.result import OverloadResult
from loadtest.overload.run import Aftermath, arrivals, run
from loadtest.record import Refusal
from loadtest.scenarios import Request, RequestOptions
from tests.loadtest import fake_server
from tests.loadtest.fake_server import FakeServer, Rule, Step, running, tone
from tests.loadtest.measuring import REQUEST, TEXT
from tests.virtual_time import in_virtual_time

virtual = in_virtual_time(client, generate, fake_server, overload_run, sys.modules["tests.loadtest.measuring"])

_PLAIN_BEFORE = 10  # five requests, twice


def _refusal(retry_after_s: float | None, status: int = 429) -> Refusal:
    return Refusal(status=status, code="rate_limit_exceeded", retry_after_s=retry_after_s)


@pytest.fixture(autouse=True)
def _few_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In virtual time the event loop is never late, and every look at it costs real time."""
    monkeypatch.setattr(generate, "_TICK_S", 1.0)


def _bench(url: str, requests: int) -> Bench:
    return Bench(
        Target(url), RequestOptions(), "custom_voice", "poisson", requests, None, seed=1, processes=1, allowed_ms=20
    )


async def _run(server: FakeServer, moments: Sequence[float], aftermath: Aftermath) -> OverloadResult:
    """Send one request at each of the moments. Their texts are their numbers."""
    planned = [
        Planned(index, replace(REQUEST, text=replace(TEXT, words=str(index))), moment)
        for index, moment in enumerate(moments)
    ]
    return await run(_bench(server.url, len(planned)), planned, 1.0, aftermath)


def _deciding(decisions: Mapping[int, Sequence[tuple[float, Refusal | None]]]) -> Rule:
    """Return a rule that decides on each try of a request after a time, from the first try of the overload on."""
    left = {str(index): list(tries) for index, tries in decisions.items()}

    async def rule(number: int, body: Mapping[str, object]) -> Refusal | None:
        tries = left.get(str(body["input"]), [])
        if number < _PLAIN_BEFORE or not tries:
            return None
        wait_s, refusal = tries.pop(0)
        await asyncio.sleep(wait_s)
        return refusal

    return rule


@virtual
async def test_refused_requests_come_back_when_they_were_told_to_and_are_counted() -> None:
    moments = [0.0, 1.0, 2.0, 3.5, 4.0, 5.0, 6.5, 7.0]
    rule = _deciding(
        {
            1: [(0.0, _refusal(2.0)), (1.0, None)],
            2: [(1.0, _refusal(3.0)), (0.0, _refusal(1.0))],
            3: [(0.0, _refusal(2.0, status=503))],
            4: [(0.0, _refusal(None))],
            5: [(0.0, _refusal(30.0))],
            7: [(0.0, _refusal(2.0))],
        }
    )

    def script(number: int) -> list[Step]:
        return [Step(0.1, tone(0.2)), Step(0.7 if number == _PLAIN_BEFORE + 8 else 0.1, tone(0.2))]

    async with running(FakeServer(script, refuses=rule)) as server:
        result = await _run(server, moments, Aftermath(second_try_within_s=10.0, recovery_after_s=4.0))
    first = result.first
    assert (first.tries, first.admitted, first.refused_at_once, first.refused_later, first.untimed) == (8, 2, 4, 1, 1)
    assert (first.not_ready, first.errors) == ({"rate_limit_exceeded": 1}, {})
    assert first.refusal_ms["p50"] == 0
    assert first.refusal_ms["max"] == pytest.approx(1000)
    assert (first.retry_after_s["p50"], first.retry_after_s["max"]) == (2.0, 30.0)
    assert (first.underran, first.underruns) == (1, 1)
    assert first.worst_silence_ms == pytest.approx(500)
    assert first.first_audio_ms["max"] == pytest.approx(100), "a second try has no part in it"
    during, after = result.second_during, result.second_after
    assert (during.tries, during.admitted, during.refused_at_once) == (2, 1, 1)
    assert during.first_audio_ms["max"] == pytest.approx(1100)
    assert (after.tries, after.admitted) == (1, 1)
    assert result.untried == 1
    again = [one for one in result.tries if one.second]
    assert [one.due_s for one in again] == pytest.approx([3.0, 6.0, 9.0])
    assert [(one.request, one.ending) for one in again] == [(1, "admitted"), (2, "refused"), (7, "admitted")]
    overload_s, numbers = server.came[_PLAIN_BEFORE], [0, 1, 2, 1, 3, 4, 5, 2, 6, 7, 7]
    came = [at - overload_s for at in server.came[_PLAIN_BEFORE:]]
    assert came[:11] == pytest.approx([0.0, 1.0, 2.0, 3.0, 3.5, 4.0, 5.0, 6.0, 6.5, 7.0, 9.0])
    assert [body["input"] for body in server.bodies[_PLAIN_BEFORE:-5]] == list(map(str, numbers))
    assert came[11] == pytest.approx(10.0 + 4.0), "the pause begins when the last second try has ended, at a tick"
    assert server.bodies[-5:] == server.bodies[:5] == server.bodies[5:10]
    assert [one.first_audio_after_ms for one in result.plain] == pytest.approx([100] * 5)
    assert os.getpid() in [one.pid for one in result.memory]


@virtual
async def test_a_server_that_does_not_recover_is_told(tmp_path: Path) -> None:
    async def rule(number: int, _: Mapping[str, object]) -> Refusal | None:
        return _refusal(1.0) if number >= 4 else None

    async with running(FakeServer(refuses=rule)) as server:
        result = await _run(server, [0.0, 0.1], Aftermath(second_try_within_s=0.95, recovery_after_s=1.0))
    assert (result.first.refused, result.second_after.tries, result.untried) == (2, 1, 1)
    assert result.first.first_audio_ms == {}
    assert [(one.error, one.total_after_ms) for one in result.plain] == [("http 429", None)] * 2
    page = tmp_path / "overload.md"
    write_report(result, page)
    text = page.read_text()
    assert "All 3 refusals were 429 with Retry-After. 0 of 1 second tries were admitted. 1 requests were not" in text
    assert "| http 429 |" in text


@virtual
async def test_a_server_that_fails_before_the_overload_is_not_measured() -> None:
    async with running(FakeServer(fault=503)) as server:
        with pytest.raises(click.ClickException, match=r"2 of 2 requests failed before the overload \(http 503: 2\)"):
            await _run(server, [0.0, 0.1], Aftermath(1.0, 1.0))


def test_each_request_has_a_text_and_a_seed_of_its_own_and_its_usual_time() -> None:
    def make(_: np.random.Generator) -> Request:
        return REQUEST

    planned = arrivals(_bench("", 30), make, 8.0)
    assert (
        len({one.request.text.words for one in planned}) == len({one.request.fields["seed"] for one in planned}) == 30
    )
    assert planned[7].request.text.words == f"7: {TEXT.words}"
    assert [one.scheduled_s for one in planned] == offsets_s("poisson", 8.0, 30, seed=1)
    assert planned == arrivals(_bench("", 30), make, 8.0)
    with pytest.raises(click.ClickException, match="does not send the same bytes twice"):
        arrivals(_bench("", 2), lambda _: replace(REQUEST, live=True), 8.0)
