"""The report of a timeline: a Markdown page with tables, and one plot."""

from itertools import groupby
from operator import itemgetter
from pathlib import Path

from loadtest.memory import memory_rows, sums_mib
from loadtest.summary import Distribution
from loadtest.tables import Row, by_kind, lateness, markdown, quantiles, try_rows
from loadtest.timeline.plot import draw
from loadtest.timeline.result import PhaseResult, TimelineResult
from loadtest.tries import AT_ONCE_MS

_WORDS = (
    "Requests arrive whether or not others are served; each is sent once. admitted: a whole stream, possibly after a "
    f"wait. refused: 429; at once is within {AT_ONCE_MS:.0f} ms. not ready: 503, by the code of the error, such as "
    "`model_starting` while the first replica of a model loads. Other errors are everything else, also streams that "
    "were cut. All times count from the moment a request was due, and a request counts in the phase in which it was "
    "due. First audio (the first audible sample arrived), underruns and silences are those of admitted streams."
)


def phase_heads(result: TimelineResult) -> list[str]:
    """Return the heads of the table of all phases."""
    heads = [f"{number}: {_named(phase)}" for number, phase in enumerate(result.phases, start=1)]
    return ["", *heads, *(["all"] if len(heads) > 1 else [])]


def _named(phase: PhaseResult) -> str:
    return f"{phase.rate:g} a second for {phase.for_s:g} s" if phase.rate else f"a pause of {phase.for_s:g} s"


def phase_rows(result: TimelineResult) -> list[Row]:
    """Return a row per figure, with a cell for each phase, and one for all if there are several."""
    columns = [phase.counts for phase in result.phases]
    return try_rows([*columns, *([result.everything] if len(columns) > 1 else [])])


def window_heads(result: TimelineResult) -> list[str]:
    """Return the heads of the table that compares the first and the last window."""
    return ["", f"the first {result.compare_window_s:g} s", f"the last {result.compare_window_s:g} s", "change"]


def compared_rows(result: TimelineResult) -> list[Row]:
    """Return a row per figure of the first and the last window."""
    first, last = result.first, result.last
    rows = [
        ["tries", str(first.tries), str(last.tries), ""],
        *(_compared(f"first audio ms, {name}", first.first_audio_ms, last.first_audio_ms, name) for name in _SHOWN),
        ["streams that underran", str(first.underran), str(last.underran), ""],
        ["not ready (503)", by_kind(first.not_ready), by_kind(last.not_ready), ""],
        ["other errors", by_kind(first.errors), by_kind(last.errors), ""],
    ]
    if result.memory:
        begin_mib, end_mib = sums_mib(result.memory)
        growth = f"{end_mib / begin_mib - 1:+.1%}" if begin_mib else "-"
        rows.append(["resident memory at the end MiB", f"{begin_mib:.0f}", f"{end_mib:.0f}", growth])
    return rows


_SHOWN = ("p50", "p99")


def _compared(name: str, first: Distribution, last: Distribution, quantile: str) -> Row:
    before, after = first.get(quantile), last.get(quantile)
    ratio = f"x {after / before:.2f}" if before and after else "-"
    return [name, quantiles(first, quantile), quantiles(last, quantile), ratio]


def write_report(result: TimelineResult, page: Path) -> None:
    """Write the report as the Markdown file `page`, and its plot beside it."""
    plot = page.with_suffix(".png")
    draw(result).savefig(plot, dpi=100)
    parts = [
        f"# {result.conditions.label}", _WORDS, markdown(phase_heads(result), phase_rows(result)),
        f"![The load and the service over time]({plot.name})",
        "## The beginning and the end",
        markdown(window_heads(result), compared_rows(result)),
    ]  # fmt: skip
    if result.has_status:
        parts += ["## Running replicas", markdown(["deployment", "replicas, from the second on"], _changes(result))]
    if result.memory:
        heads = ["process", f"MiB after the first {result.compare_window_s:g} s", "MiB at the end of the phases"]
        parts += ["## Resident memory of the service", markdown(heads, memory_rows(result.memory))]
    parts += ["## Conditions", _conditions(result)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _changes(result: TimelineResult) -> list[Row]:
    """Return a row per deployment: how many replicas ran, and from which second on. `?` is a number not known."""
    states = [(sample.at_s, sample.state) for sample in result.samples if sample.state is not None]
    names = dict.fromkeys(name for _, state in states for name in state.replicas)
    rows = []
    for name in names:
        running = [(at_s, state.running(name)) for at_s, state in states]
        changes = [next(seen) for _, seen in groupby(running, key=itemgetter(1))]
        rows.append(
            [name, ", ".join(f"{'?' if number is None else number} ({at_s:.0f} s)" for at_s, number in changes)]
        )
    return rows


def _conditions(result: TimelineResult) -> str:
    conditions = result.conditions
    lines = [
        f"`{conditions.command}`",
        f"{conditions.machine}, {conditions.date}, load average before the run {conditions.load_average:g}, "
        f"{result.stolen_share:.0%} of the processors taken by other guests of the host",
        f"{conditions.requests} requests over {result.end_s:g} s, seed {conditions.seed}; the player starts with "
        f"{conditions.start_buffer_ms:g} ms of audio",
        lateness(result.late_ms, result.lag_ms, result.allowed_lag_ms),
        _watched(result),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _watched(result: TimelineResult) -> str:
    if not result.has_status:
        return "the server has no GET /status of this project's service: replicas, streams and waits are left out"
    unanswered = sum(sample.state is None for sample in result.samples)
    return (
        f"GET /status was read {len(result.samples)} times, {unanswered} of them without an answer; streams, queue and "
        "expected wait are those of the ingress replica that answered"
    )
