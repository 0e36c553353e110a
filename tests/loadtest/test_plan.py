"""The same seed gives the same requests at the same moments, and the shards of all machines make up the whole."""

from dataclasses import replace

import numpy as np
import pytest

from loadtest.arrivals import BURST, OPEN_LOOPS, OpenLoop, offsets_s, within_s
from loadtest.bench import Bench, plan
from loadtest.client import Target
from loadtest.scenarios import Request, RequestOptions
from loadtest.texts import LANGUAGES, draw, draw_long


def _request(rng: np.random.Generator) -> Request:
    return Request("custom_voice", draw(rng, LANGUAGES), {})


_BENCH = Bench(
    Target("http://nowhere"), RequestOptions(), "custom_voice", "poisson", requests=60, users=None, seed=1, processes=1,
    allowed_ms=20,
)  # fmt: skip


@pytest.mark.parametrize("arrivals", OPEN_LOOPS)
def test_arrivals_are_repeatable_and_have_their_rate(arrivals: OpenLoop) -> None:
    moments = offsets_s(arrivals, 4.0, 8000, seed=5)
    assert moments == offsets_s(arrivals, 4.0, 8000, seed=5)
    assert moments != offsets_s(arrivals, 4.0, 8000, seed=6)
    assert moments == sorted(moments)
    assert len(moments) == 8000
    assert 8000 / moments[-1] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("arrivals", OPEN_LOOPS)
def test_all_arrivals_within_a_time_are_found(arrivals: OpenLoop) -> None:
    all_s = offsets_s(arrivals, 4.0, 8000, seed=5)
    assert within_s(arrivals, 4.0, 1000.0, seed=5) == [at for at in all_s if at < 1000.0]
    counts = [len(within_s(arrivals, 0.01, 10.0, seed)) for seed in range(200)]
    assert 0 < sum(map(bool, counts)) < 40, "one time in ten or fifty, something arrives"
    assert within_s(arrivals, 0.0, 1000.0, seed=5) == []


def test_bursts_come_together_and_independent_callers_do_not() -> None:
    assert len(set(offsets_s("poisson", 4.0, 8000, seed=5))) == 8000
    bursts = len(set(offsets_s("bursty", 4.0, 8000, seed=5)))
    assert 8000 / bursts == pytest.approx(BURST, rel=0.1)
    gaps = np.diff(offsets_s("poisson", 4.0, 8000, seed=5))
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05), "as of an exponential distribution"


def test_shards_of_one_seed_are_one_run() -> None:
    whole = plan(_BENCH, _request, 3.0, seed=1)
    parts = [plan(replace(_BENCH, shard=(share, 3)), _request, 3.0, seed=1) for share in range(3)]
    assert sorted((one for part in parts for one in part), key=lambda one: one.index) == whole
    assert plan(_BENCH, _request, 3.0, seed=2) != whole


def test_some_audio_is_kept() -> None:
    kept = [one.index for one in plan(replace(_BENCH, keep=4), _request, 3.0, seed=1) if one.keep]
    assert len(kept) == 4


def test_texts_are_of_ten_languages_and_of_the_lengths_that_were_promised() -> None:
    rng = np.random.default_rng(1)
    texts = [draw(rng, LANGUAGES) for _ in range(2000)]
    assert {text.language for text in texts} == set(LANGUAGES)
    assert len(LANGUAGES) == 10
    lengths = [len(text.words) for text in texts if text.language == "english"]
    assert sum(length < 30 for length in lengths) / len(lengths) == pytest.approx(0.25, abs=0.08)
    assert sum(length > 90 for length in lengths) / len(lengths) == pytest.approx(0.15, abs=0.08)
    assert {draw(rng, ["korean"]).language for _ in range(10)} == {"korean"}


def test_long_texts_are_long() -> None:
    long = draw_long(np.random.default_rng(1), ["german"], 600)
    assert 600 <= len(long.words) < 1200
    assert long == draw_long(np.random.default_rng(1), ["german"], 600)
