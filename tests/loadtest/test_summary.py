"""Percentiles are samples, failures count as the longest samples, and shards add up to one run."""

import csv
import math
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.merge import Samples, merge, read_samples, write_samples
from loadtest.pcm_meter import PcmMeter
from loadtest.player import play
from loadtest.result import Conditions
from loadtest.summary import QUANTILES, distribution, summarise
from loadtest.tables import write_csv
from tests.loadtest.fake_server import silence, tone
from tests.loadtest.made_up import record

CONDITIONS = Conditions(
    label="a test", date="2026-11-01", command="python -m loadtest run", machine="this one", load_average=0.1,
    scenario="custom_voice", load="poisson", rate=2.0, users=None, requests=40, seed=1, processes=1, shard=None,
    languages=["english"], model="tts-1", fields={}, start_buffer_ms=100, audible_rms=0.01, timeout_s=60,
)  # fmt: skip


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(0, 20))
def test_a_percentile_is_a_sample_that_so_many_do_not_exceed(samples: list[float], failed: int) -> None:
    rounded = [round(sample, 3) for sample in samples]
    found = distribution(rounded, failed)
    count = len(rounded) + failed
    for name, quantile in QUANTILES.items():
        value = math.inf if found[name] is None else found[name]
        assert value is not None
        assert value == math.inf or value in rounded
        at_most = sum(sample <= value for sample in rounded) + (failed if value == math.inf else 0)
        assert at_most >= quantile * count - 1e-6
        below = sum(sample < value for sample in rounded)
        assert below < quantile * count or below == 0


def test_percentiles_of_a_hundred() -> None:
    assert distribution(map(float, range(1, 101))) == {
        "p50": 50, "p90": 90, "p95": 95, "p99": 99, "p99.9": 100, "max": 100
    }  # fmt: skip
    assert distribution([1.0] * 94, failed=6)["p95"] is None
    assert distribution([]) == {}


def test_refused_callers_make_no_percentile_better() -> None:
    records = [record(index, heard_s=1.0) for index in range(90)]
    refused = [record(index, error="http 429") for index in range(90, 100)]
    everything = summarise(records + refused, [0.0], 0.1, 20).everything
    assert everything.heard_ms["p90"] == 1000
    assert everything.heard_ms["p95"] is None
    assert everything.errors == {"http 429": 10}
    assert everything.spoiled_share == pytest.approx(0.1)


def test_groups_and_the_timeline_count_every_request_once() -> None:
    scenarios = ["live_text", "custom_voice", "custom_voice"]
    records = [
        record(index, scheduled_s=0.5 * index, scenario=scenarios[index % 3], underruns=index % 2)
        for index in range(30)
    ]
    run = summarise(records, [1.0, 30.0], 0.5, 20)
    assert {name: group.requests for name, group in run.by_scenario.items()} == {"custom_voice": 20, "live_text": 10}
    assert sum(moment.requests for moment in run.timeline) == 30
    assert sum(moment.underran for moment in run.timeline) == run.everything.underran == 15
    assert run.everything.silence_ms == pytest.approx(4500)
    assert run.everything.gap_ms["p50"] == pytest.approx(100)
    assert run.offered_rate == pytest.approx(30 / 14.5, abs=1e-3)
    assert not run.self_check.valid, "the event loop woke up 30 ms late at p99"


def test_lateness_of_the_generator_is_its_own_fault() -> None:
    late = summarise([record(index, late_s=0.05) for index in range(10)], [0.0], 0.1, 20)
    assert not late.self_check.valid
    assert late.self_check.late_ms["p50"] == pytest.approx(50)


def test_shards_are_one_run(tmp_path: Path) -> None:
    records = [record(index, heard_s=0.1 + 0.01 * index, scheduled_s=0.2 * index) for index in range(40)]
    files = []
    for share in range(2):
        conditions = CONDITIONS.model_copy(update={"shard": f"{share}/2", "machine": f"machine {share}"})
        files.append(tmp_path / f"{share}.json")
        write_samples(
            Samples(conditions=conditions, records=records[share::2], lags_ms=[float(share)], cpu_share=0.1 + share),
            files[-1],
        )
    shards = [read_samples(file) for file in files]
    result, merged = merge(shards, allowed_ms=20)
    assert merged == records
    assert result.runs == [summarise(records, [0.0, 1.0], 1.1, 20)]
    assert result.conditions.machine == "machine 0; machine 1"
    with pytest.raises(click.ClickException, match="2 shards must be 0/2, 1/2; the files are 0/2, 0/2"):
        merge([shards[0], shards[0]], 20)
    other = shards[1].model_copy(update={"conditions": shards[1].conditions.model_copy(update={"seed": 9})})
    with pytest.raises(click.ClickException, match="conditions differ"):
        merge([shards[0], other], 20)


def test_the_csv_file_has_a_line_for_every_request(tmp_path: Path) -> None:
    write_csv([[record(0), record(1, error="timeout")], [record(0)]], tmp_path / "requests.csv")
    with (tmp_path / "requests.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["run"], line["index"], line["error"]) for line in lines] == [
        ("0", "0", ""), ("0", "1", "timeout"), ("1", "0", "")
    ]  # fmt: skip
    assert float(lines[0]["heard_ms"]) == pytest.approx(200)
    assert lines[1]["heard_ms"] == ""
    assert float(lines[0]["longest_gap_ms"]) == pytest.approx(100)


@pytest.mark.parametrize("rate_hz", [24000, 16000])
def test_a_wav_header_is_no_audio_in_whatever_pieces_it_comes(rate_hz: int) -> None:
    header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0" + rate_hz.to_bytes(4, "little")
    header += (2 * rate_hz).to_bytes(4, "little") + b"\x02\0\x10\0" + b"data\xff\xff\xff\xff"
    samples = silence(0.1) + tone(0.3)
    meter = PcmMeter(0.01)
    for number, at in enumerate(range(0, len(header + samples), 7)):
        meter.receive((header + samples)[at : at + 7], float(number))
    assert meter.rate_hz == rate_hz
    assert meter.pcm == samples
    assert meter.audio_s == pytest.approx(0.4 * 24000 / rate_hz)
    assert meter.audible is not None
    assert meter.audible[1] == pytest.approx(0.1 * 24000 / rate_hz, abs=0.021)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=20), st.floats(0, 2), st.floats(0, 1)
)
def test_a_player_plays_everything_once_and_in_order(
    pieces: list[tuple[float, float]], buffer_s: float, later_s: float
) -> None:
    at, arrivals = 0.0, []
    for gap, audio in pieces:
        at += gap
        arrivals.append((at, audio))
    end = at + later_s
    played = play(arrivals, buffer_s, end)
    begins, position = played.heard_s(0.0), 0.0
    assert arrivals[0][0] <= begins <= end
    for arrival, audio in arrivals:
        moment = played.heard_s(position + audio / 2) - audio / 2
        assert moment >= arrival - 1e-6, "nothing is played before it came"
        position += audio
    last = played.heard_s(position)
    assert last == pytest.approx(begins + position + sum(length for _, length in played.silences)), (
        "the rest of the time is silence"
    )
    assert all(length > 0 for _, length in played.silences)
    assert play(arrivals, 1e9, end).silences == (), "who waits for the end hears no gap"
