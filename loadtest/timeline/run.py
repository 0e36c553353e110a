"""A load in phases, while the service is watched."""

import time
from collections.abc import Sequence

import numpy as np

from loadtest.bench import Bench, numbered, send_planned
from loadtest.generate import Generated, Planned
from loadtest.memory import Memory, compared
from loadtest.result import Conditions, conditions_of
from loadtest.scenarios import Maker
from loadtest.summary import distribution
from loadtest.timeline.phases import Phase
from loadtest.timeline.result import PhaseResult, TimelineResult
from loadtest.timeline.watch import Sample, Watch, watching
from loadtest.tries import Try, counted, judged


def run(
    bench: Bench, make: Maker, phases: Sequence[Phase], moments_s: Sequence[float], window_s: float
) -> TimelineResult:
    """Send a request at each of the moments, and watch the service until the last phase and the last answer end.

    window_s: the wanted length of the first and the last window, which are compared. Raises click.ClickException.
    """
    rng = np.random.default_rng([bench.seed, 1])
    planned = [Planned(index, numbered(make(rng), index), moment) for index, moment in enumerate(moments_s)]
    conditions = conditions_of(bench, f"{bench.scenario} over time", None)
    with watching(bench.target) as watch:
        generated = send_planned(bench, planned, "timeline")
        began = min(effort.began for effort in generated.efforts)
        time.sleep(max(began + phases[-1].end_s - time.time(), 0.0))  # the last phase may be a pause
    return summed_up(bench, conditions, phases, generated, watch, window_s)


def summed_up(
    bench: Bench,
    conditions: Conditions,
    phases: Sequence[Phase],
    generated: Generated,
    watch: Watch,
    window_s: float,
) -> TimelineResult:
    """Return the figures of a load that was sent and watched."""
    tries = [judged(record, second=False) for record in generated.records]
    end_s = phases[-1].end_s
    window_s = min(window_s, end_s / 2)
    samples = _since(watch.samples, min(effort.began for effort in generated.efforts))
    by_phase = [
        PhaseResult(
            begin_s=phase.begin_s,
            rate=phase.rate,
            for_s=phase.for_s,
            counts=counted(_due(tries, phase.begin_s, phase.end_s)),
        )
        for phase in phases
    ]
    assert sum(phase.counts.tries for phase in by_phase) == len(tries), "a request is in no phase, or in two"
    return TimelineResult(
        conditions=conditions,
        phases=by_phase,
        end_s=end_s,
        everything=counted(tries),
        compare_window_s=window_s,
        first=counted(_due(tries, 0.0, window_s)),
        last=counted(_due(tries, end_s - window_s, end_s)),
        memory=_memory(samples, watch.processes, window_s, end_s),
        has_status=watch.has_status,
        late_ms=distribution(record.late_ms for record in generated.records),
        lag_ms=distribution(lag for effort in generated.efforts for lag in effort.lags_ms),
        allowed_lag_ms=bench.allowed_ms,
        stolen_share=round(generated.stolen_share, 4),
        processes=watch.processes,
        tries=tries,
        samples=samples,
    )


def _due(tries: Sequence[Try], begin_s: float, end_s: float) -> list[Try]:
    return [one for one in tries if begin_s <= one.due_s < end_s]


def _since(samples: Sequence[Sample], began: float) -> list[Sample]:
    """Return the samples from the beginning of the load on, with moments that count from it."""
    return [
        sample.model_copy(update={"at_s": round(sample.at_s - began, 3)}) for sample in samples if sample.at_s >= began
    ]


def _memory(samples: Sequence[Sample], names: dict[int, str], window_s: float, end_s: float) -> list[Memory]:
    """Return the memory of each process after the first window and at the end of the phases.

    It is that of the last sample before each moment.
    """

    def at(moment_s: float) -> dict[int, tuple[str, float]]:
        before = [sample for sample in samples if sample.at_s <= moment_s]
        return {pid: (names[pid], mib) for pid, mib in before[-1].memory_mib.items()} if before else {}

    return compared(at(window_s), at(end_s))
