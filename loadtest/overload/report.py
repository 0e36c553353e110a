"""The report of an overload: a Markdown page with tables, and one plot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.memory import memory_rows
from loadtest.overload.result import OverloadResult, Plain
from loadtest.plots import COLOURS, draw_endings
from loadtest.tables import Row, lateness, markdown, try_rows
from loadtest.tries import AT_ONCE_MS, ENDINGS, Ending, Try

HEADS = ["", "first tries", "second tries during the arrivals", "second tries after the arrivals"]
_PLAIN_HEADS = ["request", "first audio ms, before", "after", "total ms, before", "after"]
_MEMORY_HEADS = ["process", "MiB before", "MiB after"]
_BINS = 120
_WORDS = (
    "Requests arrive whether or not others are served. Each has a text and a seed of its own. A request that is "
    "refused with 429 and `Retry-After` is sent again, once, exactly at that time. admitted: a whole stream. refused: "
    f"429; at once is within {AT_ONCE_MS:.0f} ms. not ready: 503, by the code of the error. Other errors are "
    "everything else, also streams that were cut. All times count from the moment a try was due. First audio (the "
    "first audible sample arrived) and underruns are those of admitted streams."
)


def rows(result: OverloadResult) -> list[Row]:
    """Return a row per figure, with a cell for each kind of try."""
    return try_rows((result.first, result.second_during, result.second_after))


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
        parts += ["## Resident memory of the service", markdown(_MEMORY_HEADS, memory_rows(result.memory))]
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


def _conditions(result: OverloadResult) -> str:
    conditions = result.conditions
    lines = [
        f"`{conditions.command}`",
        f"{conditions.machine}, {conditions.date}, load average before the run {conditions.load_average:g}",
        f"{conditions.requests} requests, {conditions.rate:g} a second, over {result.arrivals_end_s:.1f} s, seed "
        f"{conditions.seed}; the player starts with {conditions.start_buffer_ms:g} ms of audio",
        lateness(result.late_ms, result.lag_ms, result.allowed_lag_ms),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _timeline(result: OverloadResult) -> Figure:
    figure = Figure(figsize=(11, 12), layout="constrained")
    arriving, hearing, told, again = figure.subplots(4, 1, sharex=True)
    firsts, seconds = ([one for one in result.tries if one.second is second] for second in (False, True))
    edges = np.linspace(0.0, max(one.due_s for one in result.tries) + 1.0, _BINS + 1)
    draw_endings(arriving, firsts, edges, "first tries")
    for tries, name, marker in ((firsts, "first tries", "o"), (seconds, "second tries", "x")):
        heard = [(one.due_s, one.first_audio_ms) for one in tries if one.first_audio_ms is not None]
        if heard:
            hearing.scatter(*zip(*heard, strict=True), s=14, marker=marker, label=name)
    hearing.set(ylabel="first audio, ms", yscale="log")
    _draw_times(told, firsts, {one.request: one.ending for one in seconds})
    draw_endings(again, seconds, edges, "second tries")
    again.set(xlabel="seconds from the first arrival (by the moment a try was due or, for Retry-After, was refused)")
    for axes in (arriving, hearing, told, again):
        axes.axvline(result.arrivals_end_s, color="grey", linestyle=":", label="end of the arrivals")
        axes.legend(fontsize=8)
    return figure


def _draw_times(axes: Axes, firsts: Sequence[Try], endings: dict[int, Ending]) -> None:
    """Draw the Retry-After of each refused request, by the ending of its second try."""
    for ending in (*ENDINGS, None):
        these = [one for one in firsts if one.ending == "refused" and endings.get(one.request) == ending]
        told = [(one.end_s, one.retry_after_s) for one in these if one.retry_after_s is not None]
        if told:
            name, colour = ("not sent again", "C7") if ending is None else (f"then {ending}", COLOURS[ending])
            axes.scatter([at for at, _ in told], [after for _, after in told], 14, color=colour, label=name)
    axes.set(ylabel="Retry-After, s")
