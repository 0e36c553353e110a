"""The report of a run under faults: a Markdown page with tables, and one plot."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.faults.outcomes import ENDINGS, Counts, Outcome
from loadtest.faults.result import FaultResult, Struck
from loadtest.summary import kept_up
from loadtest.tables import Row, by_kind, markdown, quantiles

HEADS = [
    "", "streams", "whole and equal", "of these identical", "different", "cut", "refused", "HTTP errors", "failed",
    "underran", "worst silence ms", "first audio ms, p50 / p95", "largest difference",
]  # fmt: skip
_FAULT_HEADS = ["at s", "replica", "action", "what happened", "streams under way", "how they ended"]
_STREAM_HEADS = ["sent at s", "request", "ending", "audio s", "differs at s", "largest difference"]
# The streams that are listed; all of them are in the result file.
_MOST_LISTED = 40
_COLOURS = {
    "equal": "C0", "different": "C3", "cut": "C1", "refused": "C4", "error": "C5", "failed": "C7",
}  # fmt: skip
_WORDS = (
    "Every stream is compared with the same request (same text, voice and seed) on the undisturbed service. It is "
    "equal if no sample differs by more than {tolerance} of the 65,536 steps of 16 bits, and the lengths are equal. "
    "The row `undisturbed` compares two undisturbed streams of each request. cut: the connection ended before the "
    "stream did. refused: 429 or 503 with Retry-After. failed: a timeout, no connection, or no speech. underran: a "
    "piece arrived after all audio before it had been played; the worst silence is the longest such gap. first audio: "
    "the first audible sample arrived; a stream without one counts as longer than any. largest difference: of a sample "
    "of an equal stream, in steps."
)


def rows(result: FaultResult) -> list[Row]:
    """Return the rows of the table of all streams."""
    return [_row("undisturbed", result.undisturbed), _row("under faults", result.disturbed)]


def _row(name: str, counts: Counts) -> Row:
    plain = (counts.streams, counts.equal, counts.identical, counts.different, counts.cut, counts.refused)
    return [
        name,
        *map(str, plain),
        by_kind(counts.errors),
        by_kind(counts.failed),
        str(counts.underran),
        f"{counts.worst_silence_ms:.0f}",
        quantiles(counts.first_audio_ms, "p50", "p95"),
        str(counts.largest_steps),
    ]


def write_report(result: FaultResult, page: Path) -> None:
    """Write the report as the Markdown file `page`, and its plot beside it."""
    plot = page.with_suffix(".png")
    _timeline(result).savefig(plot, dpi=100)
    parts = [
        f"# {result.conditions.label}",
        _WORDS.format(tolerance=result.tolerance_steps),
        markdown(HEADS, rows(result)),
    ]
    parts.append(f"![Each stream over time, with the faults as vertical lines]({plot.name})")
    if result.faults:
        parts += ["## Faults", markdown(_FAULT_HEADS, [_fault_row(fault, result.streams) for fault in result.faults])]
    for name, endings in (("leavers", result.leavers), ("slow readers", result.slow_readers)):
        if endings:
            parts.append(f"Other clients, {name}: {by_kind(endings)}. They are in no row above.")
    parts += _listed([stream for stream in result.streams if stream.ending != "equal"])
    parts += ["## Conditions", _conditions(result)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _fault_row(fault: Struck, streams: Sequence[Outcome]) -> Row:
    under_way = [stream for stream in streams if stream.sent_s <= fault.at_s < stream.end_s]
    ended = {ending: sum(stream.ending == ending for stream in under_way) for ending in ENDINGS}
    what = fault.what if fault.happened else f"did NOT happen: {fault.what}"
    return [
        f"{fault.at_s:.2f}",
        fault.kind,
        fault.action,
        what.replace("|", "\\|").replace("\n", " "),
        str(len(under_way)),
        ", ".join(f"{ending}: {count}" for ending, count in ended.items() if count) or "-",
    ]


def _listed(streams: Sequence[Outcome]) -> list[str]:
    """Return the section of the streams that were not whole and equal."""
    if not streams:
        return []
    listed = [
        [
            f"{stream.sent_s:.2f}",
            str(stream.request),
            f"{stream.ending} ({stream.detail})" if stream.detail else stream.ending,
            f"{stream.audio_s:.2f}",
            "-" if stream.differs_at_s is None else f"{stream.differs_at_s:.3f}",
            str(stream.largest_steps),
        ]
        for stream in streams[:_MOST_LISTED]
    ]
    left = len(streams) - len(listed)
    more = [f"{left} more streams are in the result file."] if left else []
    return ["## Streams that were not whole and equal", markdown(_STREAM_HEADS, listed), *more]


def _conditions(result: FaultResult) -> str:
    conditions = result.conditions
    in_time = kept_up(result.allowed_lag_ms, result.lag_ms)
    late = "" if in_time else ": the callers did NOT keep up, so latencies and silences tell nothing"
    lines = [
        f"`{conditions.command}`",
        f"{conditions.machine}, {conditions.date}, load average before the run {conditions.load_average:g}",
        f"{conditions.users} streams at a time for {result.for_s:g} s, {conditions.requests} different requests, seed "
        f"{conditions.seed}; the player starts with {conditions.start_buffer_ms:g} ms of audio",
        f"the event loop of the callers woke up {quantiles(result.lag_ms, 'p99', 'max')} ms late (p99 / max) under "
        f"faults, and {result.allowed_lag_ms:g} ms are allowed at p99{late}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _timeline(result: FaultResult) -> Figure:
    figure = Figure(figsize=(11, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    first = [(one.sent_s, one.first_audio_ms) for one in result.streams if one.first_audio_ms is not None]
    silent = [(moment, 1000 * length) for one in result.streams for moment, length in one.silences]
    for points, name, marker in ((first, "first audio", "o"), (silent, "silence", "x")):
        if points:
            upper.scatter(*zip(*points, strict=True), s=18, marker=marker, label=name)
    upper.set(ylabel="ms", yscale="log")
    for height, ending in enumerate(ENDINGS):
        ended = [stream.end_s for stream in result.streams if stream.ending == ending]
        lower.scatter(ended, [height] * len(ended), s=14, color=_COLOURS[ending])
    lower.set(xlabel="seconds from the start of the faults", ylabel="end of a stream")
    lower.set_yticks(range(len(ENDINGS)), ENDINGS)
    for axes in (upper, lower):
        _mark(axes, result.faults)
    if upper.get_legend_handles_labels()[0]:
        upper.legend(fontsize=8)
    return figure


def _mark(axes: Axes, faults: Sequence[Struck]) -> None:
    """Draw every fault that happened as a vertical line."""
    seen = set[str]()
    for fault in faults:
        if fault.happened:
            name = f"{fault.action} {fault.kind}"
            colour = {"talker": "grey", "codec-decoder": "C2", "codec-encoder": "C6", "ingress": "C8"}[fault.kind]
            style = {"kill": "-", "stop": "--", "slow": ":", "drain": "-."}[fault.action]
            axes.axvline(fault.at_s, color=colour, linestyle=style, linewidth=1, label=None if name in seen else name)
            seen.add(name)
