"""The commands, run against servers on real sockets."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from loadtest.__main__ import main
from loadtest.client import Target
from loadtest.compare import LATENCIES, compare
from loadtest.options import LoadOptions
from loadtest.readme import BEGIN, END, PAGES, rewritten
from loadtest.result import Result as Measured
from loadtest.result import read_result
from loadtest.summary import Run, summarise
from tests.loadtest.fake_server import FakeServer, Step, running, tone
from tests.loadtest.measuring import sent, virtual
from tests.loadtest.slow_proxy import proxy_app
from tests.loadtest.test_generate import in_a_thread
from tests.loadtest.test_summary import CONDITIONS

ROOT = Path(__file__).parents[2]
# However late this machine lets the generator be, what it found counts.
_ANY_LAG = ["--allowed-lag-ms", "1000000"]
_QUICK = ["--requests", "20", *_ANY_LAG]


def _called(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_run_writes_what_it_found_and_compares_it(tmp_path: Path) -> None:
    with in_a_thread(FakeServer(lambda _: [Step(0.05, tone(0.1)), Step(0.05, tone(0.1))])) as server:
        words = ["run", "--url", server.url, "--rate", 40, *_QUICK, "--api-key", "secret", "--out"]
        more = ["--repeat", 2, "--keep", 4, "--field", "stream=true", "--language", "german"]
        first = _called(*words, tmp_path / "first", *more)
        assert first.exit_code == 0, first.output
        other = _called(*words, tmp_path / "other", "--baseline", tmp_path / "first" / "result.json")
    assert {body["stream"] for body in server.bodies[:40]} == {True}
    assert {body["voice"] for body in server.bodies} == {"someone"}
    assert len(server.bodies) == 60
    result = read_result(tmp_path / "first" / "result.json")
    assert [run.everything.requests for run in result.runs] == [20, 20]
    assert result.runs[0].everything.errors == {}
    assert "secret" not in result.model_dump_json()
    page = (tmp_path / "first" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert "http://" not in page.replace(server.url, "")
    assert len((tmp_path / "first" / "requests.csv").read_text().splitlines()) == 41
    audio = tmp_path / "first" / "audio"
    texts = (audio / "texts.txt").read_text(encoding="utf-8").splitlines()
    assert len(texts) == len(list(audio.glob("*.wav"))) == 4
    assert other.exit_code == 1
    assert "the conditions differ: languages was" in other.output


def test_a_knee_is_searched_for_on_a_server(tmp_path: Path) -> None:
    """The server answers one request after the other, at most 50 a second, with whole files."""
    turn = asyncio.Lock()

    class OneAtATime(FakeServer):
        async def speech(self, request: web.Request) -> web.StreamResponse:
            async with turn:
                return await super().speech(request)

    with in_a_thread(OneAtATime(lambda _: [Step(0.02, tone(0.1))])) as server:
        words = ["--url", server.url, *_QUICK, "--ttfa-ms", 150, "--lowest", 30, "--tolerance", 1.0, "--out", tmp_path]
        found = _called("knee", *words)
    assert found.exit_code == 0, found.output
    assert "note: a trial has 20 requests" in found.output
    knee = read_result(tmp_path / "result.json").knee
    assert knee is not None
    assert knee.rate <= 50
    assert knee.broken_at is not None
    assert knee.broken_at <= 100
    kept = [trial for trial in knee.trials if trial.kept]
    assert [trial for trial in knee.trials if trial.run.timeline] == kept[-1:]
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 1 + bool(kept)


@asynccontextmanager
async def _slower(url: str, slower: float) -> AsyncIterator[str]:
    """`url` through a proxy."""
    runner = web.AppRunner(proxy_app(url, slower), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@virtual
async def test_a_service_made_a_fifth_slower_is_caught_and_itself_is_not() -> None:
    async def measured(url: str) -> Measured:
        runs = list[Run]()
        for _ in range(3):
            records, _ = await sent(Target(url), [0.1 * index for index in range(11)])
            runs.append(summarise(records, [], 0.0, 1000))
        return Measured(conditions=CONDITIONS, runs=runs)

    async with (
        running(FakeServer(lambda _: [Step(0.25, tone(0.1))] * 2)) as server,
        _slower(server.url, 1.0) as same,
        _slower(server.url, 1.2) as slower,
    ):
        before, again, worse = await measured(same), await measured(same), await measured(slower)
    assert {found.figure for found in compare(before, again) if found.regressed} == set()
    assert {found.figure for found in compare(before, worse) if found.regressed} == set(LATENCIES)
    for found in compare(before, worse):
        if found.figure in LATENCIES:
            assert found.now == pytest.approx(1.2 * found.baseline, rel=0.001)


def test_shards_on_two_machines_are_merged(tmp_path: Path) -> None:
    """Each is a process of its own; they begin at the same moment, or as soon as they can."""
    start = time.time() + 1
    with in_a_thread(FakeServer()) as server:
        command = [sys.executable, "-m", "loadtest", "run", "--url", server.url, "--rate", "40", *_QUICK]
        shards = [
            subprocess.Popen(
                [*command, "--shard", f"{share}/2", "--start-at", str(start), "--out", str(tmp_path / str(share))]
            )
            for share in range(2)
        ]
        assert [shard.wait() for shard in shards] == [0, 0]
    merged = _called(
        "merge", *(tmp_path / str(share) / "samples.json" for share in range(2)), *_ANY_LAG, "--out", tmp_path / "both"
    )
    assert merged.exit_code == 0, merged.output
    (run,) = read_result(tmp_path / "both" / "result.json").runs
    assert run.everything.requests == len(server.bodies) == 20
    assert run.everything.errors == {}


def test_a_server_without_what_a_scenario_needs() -> None:
    with in_a_thread(FakeServer()) as server:
        result = _called("run", "--url", server.url, "--scenario", "clone_stored", "--rate", 1)
    assert result.exit_code == 1
    assert "POST /v1/audio/voices was answered with 405: 405: Method Not Allowed" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--url", "http://127.0.0.1:9"], "--load poisson needs --rate and does not accept --users"),
        (
            ["run", "--url", "http://127.0.0.1:9", "--load", "closed", "--rate", "3"],
            "needs --users and does not accept --rate",
        ),
        (["run", "--url", "http://127.0.0.1:9", "--rate", "3"], "http://127.0.0.1:9: Cannot connect"),
        (["run", "--url", "http://127.0.0.1:9", "--rate", "3", "--shard", "2/2"], "--shard 2/2 is not i/n"),
        (
            ["run", "--url", "http://127.0.0.1:9", "--rate", "3", "--shard", "0/2", "--repeat", "3"],
            "does not accept --repeat",
        ),
        (
            ["run", "--url", "http://127.0.0.1:9", "--rate", "3", "--field", "stream"],
            "--field stream is not NAME=VALUE",
        ),
        (["knee", "--url", "http://127.0.0.1:9", "--load", "closed"], "a closed loop has no rate"),
        (["knee", "--url", "http://127.0.0.1:9", "--lowest", "0"], "0.0 is not in the range x>0"),
        (["knee", "--url", "http://127.0.0.1:9", "--tolerance", "0"], "0.0 is not in the range x>0"),
        (["compare", "README.md", "README.md"], "README.md is not a result file"),
        (["merge", "README.md"], "README.md is not a samples.json"),
        (["peer", "qwen_tts", "--python", "nowhere/python"], "nowhere/python does not exist"),
    ],
)
def test_mistakes_are_explained(words: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = _called(*words)
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output


def test_every_option_of_a_load_is_used() -> None:
    options = {name for command in ("run", "knee") for name in (p.name for p in main.commands[command].params)}
    assert set(LoadOptions.__annotations__) <= options


@pytest.mark.parametrize("page", PAGES)
def test_pages_say_what_the_result_files_say(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert rewritten(page, text, ROOT / "docs" / "benchmarks") == text


def test_a_section_comes_from_files_alone(tmp_path: Path) -> None:
    readme = f"before\n{BEGIN}\n\nan old figure\n\n{END}\nafter\n"
    assert rewritten("README.md", readme, tmp_path) == f"before\n{BEGIN}\n\n\n\n{END}\nafter\n"
    (tmp_path / "engine-0.6B.json").write_text('[{"name": "fast", "batch": 1, "ms_per_frame": 53.1}]')
    assert "| fast | 53 |" in rewritten("README.md", readme, tmp_path)
    with pytest.raises(click.ClickException, match=r"README.md has no section between"):
        rewritten("README.md", "nothing", tmp_path)


def test_every_result_file_has_a_table() -> None:
    """The tables of the two pages hold all that is measured for them."""
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    for file in (ROOT / "docs" / "benchmarks").glob("*-peer.json"):
        assert f"| {file.stem.removesuffix('-peer')} |" in pages
    for file in (ROOT / "docs" / "benchmarks").glob("scenario-*.html"):
        assert file.name in pages
