"""The report of an overload: a Markdown page with tables, and one plot."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.overload.memory import Memory
from loadtest.overload.result import OverloadResult, Plain
from loadtest.overload.tries import AT_ONCE_MS, ENDINGS, Counts, Ending, Try
from loadtest.summary import kept_up
from loadtest.tables import Row, by_kind, markdown, quantiles

HEADS = ["", "first tries", "second tries during the arrivals", "second tries after the arrivals"]
_PLAIN_HEADS = ["request", "first audio ms, before", "after", "total ms, before", "after"]
_MEMORY_HEADS = ["process", "MiB before", "MiB after"]
_COLOURS: dict[Ending, str] = {"admitted": "C0", "refused": "C1", "failed": "C3"}
_BINS = 120
_WORDS = (
    "Requests arrive whether or not others are served. Each has a text and a seed of its own. A request that is "
    "refused with 429 and `Retry-After` is sent again, once, exactly at that time. admitted: a whole stream. refused: "
    f"429; at once is within {AT_ONCE_MS:.0f} ms. Other errors are everything else, also streams that were cut. All "
    "times count from the moment a try was due. First audio (the first audible sample arrived) and underruns are those "
    "of admitted streams."
)


def rows(result: OverloadResult) -> list[Row]:
    """Return a row per figure, with a cell for each kind of try."""
    figures: list[tuple[str, Callable[[Counts], str]]] = [
        ("tries", lambda counts: str(counts.tries)),
        ("admitted", _admitted),
        ("refused at once", lambda counts: str(counts.refused_at_once)),
        ("refused after waiting", lambda counts: str(counts.refused_later)),
        ("refused without Retry-After", lambda counts: str(counts.untimed)),
        ("other errors", lambda counts: by_kind(counts.errors)),
        ("time until the refusal ms, p50 / p95 / p99", lambda one: quantiles(one.refusal_ms, "p50", "p95", "p99")),
        ("Retry-After s, p50 / max", lambda counts: quantiles(counts.retry_after_s, "p50", "max")),
        ("first audio ms, p50 / p95 / max", lambda one: quantiles(one.first_audio_ms, "p50", "p95", "max")),
        ("streams that underran (underruns)", lambda counts: f"{counts.underran} ({counts.underruns})"),
        ("worst silence ms", lambda counts: f"{counts.worst_silence_ms:.0f}"),
    ]
    kinds = (result.first, result.second_during, result.second_after)
    return [[name, *map(figure, kinds)] for name, figure in figures]


def _admitted(counts: Counts) -> str:
    return f"{counts.admitted} ({counts.admitted / counts.tries:.0%})" if counts.tries else "0"


def write_report(result: OverloadResult, page: Path) -> None:
    """Write the report as the Markdown file `page`, and its plot beside it."""
    plot = page.with_suffix(".png")
    _timeline(result).savefig(plot, dpi=100)
    parts = [
        f"# {result.conditions.label}", _WORDS, markdown(HEADS, rows(result)), _verdict(result),
        f"![Tries, first audio, Retry-After and second tries over time]({plot.name})",
        "## The same requests alone, before and after",
        f"They were sent one after the other, before the overload and {result.recovery_after_s:g} s after its last "
        "answer.",
        markdown(_PLAIN_HEADS, [_plain_row(number, one) for number, one in enumerate(result.plain)]),
    ]  # fmt: skip
    if result.memory:
        parts += ["## Resident memory of the service", markdown(_MEMORY_HEADS, _memory_rows(result.memory))]
    parts += ["## Conditions", _conditions(result)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _verdict(result: OverloadResult) -> str:
    during, after = result.second_during, result.second_after
    tries, admitted = during.tries + after.tries, during.admitted + after.admitted
    refused = result.first.refused + during.refused + after.refused
    untimed = result.first.untimed + during.untimed + after.untimed
    said = [
        f"All {refused} refusals were 429 with Retry-After."
        if not untimed
        else f"{untimed} of {refused} refusals were 429 WITHOUT Retry-After.",
        f"{admitted} of {tries} second tries were admitted.",
    ]
    if result.untried:
        said.append(
            f"{result.untried} requests were not sent again: their time was later than {result.second_try_within_s:g} "
            "s after the last arrival."
        )
    return " ".join(said)


def _plain_row(number: int, plain: Plain) -> Row:
    after = [plain.first_audio_after_ms, plain.total_after_ms]
    first, total = (plain.error or "-" if value is None else f"{value:.0f}" for value in after)
    return [str(number), f"{plain.first_audio_before_ms:.0f}", first, f"{plain.total_before_ms:.0f}", total]


def _memory_rows(memory: Sequence[Memory]) -> list[Row]:
    """Return a row per process and one of their sums, in which a process that was not there counts as nothing."""
    rows = [
        [f"{one.process.replace('|', ' ')} ({one.pid})", *(_mib(value) for value in (one.begin_mib, one.end_mib))]
        for one in memory
    ]
    sums = (sum(one.begin_mib or 0.0 for one in memory), sum(one.end_mib or 0.0 for one in memory))
    return [*rows, ["all", *map(_mib, sums)]]


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _conditions(result: OverloadResult) -> str:
    conditions = result.conditions
    in_time = kept_up(result.allowed_lag_ms, result.late_ms, result.lag_ms)
    late = "" if in_time else ": the callers did NOT keep up, so latencies and silences tell nothing"
    lines = [
        f"`{conditions.command}`",
        f"{conditions.machine}, {conditions.date}, load average before the run {conditions.load_average:g}",
        f"{conditions.requests} requests, {conditions.rate:g} a second, over {result.arrivals_end_s:.1f} s, seed "
        f"{conditions.seed}; the player starts with {conditions.start_buffer_ms:g} ms of audio",
        f"tries were sent {quantiles(result.late_ms, 'p99', 'max')} ms late, and the event loop of the callers woke up "
        f"{quantiles(result.lag_ms, 'p99', 'max')} ms late (p99 / max); {result.allowed_lag_ms:g} ms are allowed at "
        f"p99{late}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _timeline(result: OverloadResult) -> Figure:
    figure = Figure(figsize=(11, 12), layout="constrained")
    arriving, hearing, told, again = figure.subplots(4, 1, sharex=True)
    firsts, seconds = ([one for one in result.tries if one.second is second] for second in (False, True))
    edges = np.linspace(0.0, max(one.due_s for one in result.tries) + 1.0, _BINS + 1)
    _draw_counts(arriving, firsts, edges, "first tries")
    for tries, name, marker in ((firsts, "first tries", "o"), (seconds, "second tries", "x")):
        heard = [(one.due_s, one.first_audio_ms) for one in tries if one.first_audio_ms is not None]
        if heard:
            hearing.scatter(*zip(*heard, strict=True), s=14, marker=marker, label=name)
    hearing.set(ylabel="first audio, ms", yscale="log")
    _draw_times(told, firsts, {one.request: one.ending for one in seconds})
    _draw_counts(again, seconds, edges, "second tries")
    again.set(xlabel="seconds from the first arrival (by the moment a try was due or, for Retry-After, was refused)")
    for axes in (arriving, hearing, told, again):
        axes.axvline(result.arrivals_end_s, color="grey", linestyle=":", label="end of the arrivals")
        axes.legend(fontsize=8)
    return figure


def _draw_counts(
    axes: Axes, tries: Sequence[Try], edges: "np.ndarray[tuple[int], np.dtype[np.float64]]", name: str
) -> None:
    """Draw how many tries were due in each bin, by their ending."""
    for ending in ENDINGS:
        counts, _ = np.histogram([one.due_s for one in tries if one.ending == ending], edges)
        axes.stairs(counts, edges, color=_COLOURS[ending], label=ending)
    axes.set(ylabel=f"{name} in {edges[1] - edges[0]:.1f} s")


def _draw_times(axes: Axes, firsts: Sequence[Try], endings: dict[int, Ending]) -> None:
    """Draw the Retry-After of each refused request, by the ending of its second try."""
    for ending in (*ENDINGS, None):
        these = [one for one in firsts if endings.get(one.request) == ending]
        told = [(one.end_s, one.retry_after_s) for one in these if one.retry_after_s is not None]
        if told:
            name, colour = ("not sent again", "C7") if ending is None else (f"then {ending}", _COLOURS[ending])
            axes.scatter([at for at, _ in told], [after for _, after in told], 14, color=colour, label=name)
    axes.set(ylabel="Retry-After, s")
