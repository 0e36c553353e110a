"""The report of a result file: one self-contained HTML file with conditions, tables and plots."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.knee import Knee
from loadtest.result import Result
from loadtest.summary import Run
from loadtest.tables import GROUP_HEADS, TRIAL_HEADS, group_rows, knee_said, trial_rows

_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left}img{max-width:100%}"
)
_WORDS = (
    "All times are from the client's clock and count from the moment a request was due, even if it was sent later. "
    "TTFA is given three times: until the first audible sample was played by a player with the start buffer (heard), "
    "until that sample arrived, and until the first byte arrived. A stream underran if a piece arrived after all audio "
    "before it had been played. Failed requests count as longer than any other; - stands for no answer."
)
_TRIALS = (
    "A trial ends as soon as the promise is certainly broken. Its percentiles and shares then cover the requests that "
    "had ended."
)


def write_report(result: Result, file: Path) -> None:
    """Write the report as the HTML file `file`."""
    conditions = result.conditions
    parts = [f"<h1>{html.escape(conditions.label)}</h1>", f"<p>{_WORDS}</p>"]
    if result.knee is not None:
        parts += _knee(result.knee)
    for number, run in enumerate(result.runs, start=1):
        parts += _run(run, f"Run {number} of {len(result.runs)}")
    given = conditions.model_dump(exclude_none=True).items()
    parts += ["<h2>Conditions</h2>", _table(["", ""], [[name, _short(value)] for name, value in given])]
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(conditions.label)}</title>'
    file.write_text(f"{page}<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n", encoding="utf-8")


def _knee(knee: Knee) -> list[str]:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    latency, spoiled = figure.subplots(1, 2)
    trials = sorted(knee.trials, key=lambda trial: trial.rate)
    for name in ("p50", "p95"):
        points = [(trial.rate, trial.run.everything.heard_ms.get(name)) for trial in trials]
        known = [(rate, value) for rate, value in points if value is not None]
        if known:
            latency.plot(*zip(*known, strict=True), marker="o", label=name)
    latency.axhline(knee.promise.heard_p95_ms, color="grey", linestyle=":", label="limit of p95")
    _labelled(latency, "requests a second", "TTFA heard, ms", log=True)
    shares = [100 * trial.run.everything.spoiled_share for trial in trials]
    spoiled.plot([trial.rate for trial in trials], shares, marker="o", color="C3", label="spoiled")
    underran = [100 * trial.run.everything.underran / trial.run.everything.requests for trial in trials]
    spoiled.plot([trial.rate for trial in trials], underran, marker=".", color="C1", label="underran")
    if knee.promise.spoiled_share is not None:
        spoiled.axhline(100 * knee.promise.spoiled_share, color="grey", linestyle=":", label="limit")
    _labelled(spoiled, "requests a second", "% of streams")
    shown = [f"<p><b>{html.escape(knee_said(knee))}</b></p>", f"<p>{_TRIALS}</p>"]
    shown += [_table(TRIAL_HEADS, trial_rows(knee)), _image(figure)]
    for trial in knee.trials:
        if trial.run.timeline:
            shown += _run(trial.run, f"The last trial that was kept, {trial.rate:.3g} requests a second")
    return shown


def _run(run: Run, title: str) -> list[str]:
    check = run.self_check
    verdict = "kept up" if check.valid else "did NOT keep up: this run tells nothing about the server"
    summary = (
        f"{run.offered_rate:g} requests a second were due, {run.audio_s_per_s:g} s of audio arrived a second, over "
        f"{run.seconds:.0f} s. The generator {verdict} (sent {check.late_ms.get('p99')} ms late and woke up "
        f"{check.lag_ms.get('p99')} ms late at p99, {check.cpu_share:.0%} of a core)."
    )
    if run.stolen_share is not None:
        summary += f" Other guests of the machine's host used {run.stolen_share:.1%} of the processors."
    return [f"<h2>{title}</h2>", f"<p>{summary}</p>", _table(GROUP_HEADS, group_rows(run)), _image(_timeline(run))]


def _timeline(run: Run) -> Figure:
    figure = Figure(figsize=(10, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    known = [(moment.at_s, moment.heard_p95_ms) for moment in run.timeline if moment.heard_p95_ms is not None]
    if known:
        upper.plot(*zip(*known, strict=True), marker=".", label="TTFA heard, p95")
    for name in ("p50", "p95"):
        if (value := run.everything.heard_ms.get(name)) is not None:
            upper.axhline(value, color="grey", linestyle=":" if name == "p50" else "--", label=f"{name} of all")
    _labelled(upper, "", "ms", log=True)
    at = [moment.at_s for moment in run.timeline]
    lower.step(at, [moment.under_way for moment in run.timeline], where="post", label="under way")
    lower.step(at, [moment.requests for moment in run.timeline], where="post", label="due", alpha=0.6)
    for name, colour in (("underran", "C1"), ("failed", "C3")):
        lower.step(at, [getattr(moment, name) for moment in run.timeline], where="post", label=name, color=colour)
    _labelled(lower, "seconds from the start (by the moment a request was due)", "requests")
    return figure


def _labelled(axes: Axes, x: str, y: str, *, log: bool = False) -> None:
    axes.set(xlabel=x, ylabel=y)
    if log:
        axes.set_yscale("log")
    axes.legend(fontsize=8)


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=75)
    return f'<img alt="plot" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{html.escape(head)}</th>" for head in heads)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 300 else f"{text[:300]} ..."
